//! EC2's query protocol at the edge: which requests are EC2's, forms in, XML out.
//!
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Query-Requests.html>

use std::collections::BTreeSet;

use berth_identity::sigv4::claimed_service;
use berth_identity::{AuthError, Identity};
use berth_shapes::ec2::{self, Operation, Request};
use berth_shapes::protocol::{form, query};
use berth_shapes::{Constraint, DecodeError, Violations};
use bytes::Bytes;
use http::header;
use http::request::Parts;
use serde_json::Value;

use super::failures::{invalid, missing, refuse, unsupported};
use super::{
    instances, internet_gateways, network_interfaces, places, route_tables, security_group_rules, security_groups, subnets, tags, vpcs,
};
use crate::context::Api;
use crate::failure::Failure;
use crate::protocol::Protocol;
use crate::roles::denied_by_ec2;

/// The namespace of answers: what EC2 sends ends with a slash, which botocore's model leaves out.
const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";
const DIALECT: query::Dialect = query::Dialect::Ec2;
/// Fields of a form that are no member of a request.
const OUTSIDE: [&str; 2] = ["Action", "Version"];

/// What a form asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    operation: Operation,
    value: Value,
}

/// The protocol: the action stands in the body, and a signature is looked at before that.
pub(crate) struct Ec2Query;

impl Protocol for Ec2Query {
    type Head = ();
    type Asked = Asked;
    const CONTENT_TYPE: &'static str = "text/xml;charset=UTF-8";

    /// It is a form, and signed for `ec2`. Forms of other services of the query protocol are not.
    fn speaks(head: &Parts) -> bool {
        let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let path_and_query = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        content_type.starts_with("application/x-www-form-urlencoded")
            && claimed_service(&head.headers, path_and_query).as_deref() == Some(ec2::SIGNING_NAME)
    }

    fn head(_: &Parts) -> Result<((), &'static str), Failure> {
        Ok(((), ""))
    }

    fn read((): (), body: Bytes) -> Result<(Asked, &'static str), Failure> {
        let asked = read(&body)?;
        let name = asked.operation.name();
        Ok((asked, name))
    }

    fn authorize(_: &Api, identity: &Identity, asked: &Asked) -> Result<(), Failure> {
        match identity.role_session() {
            None => Ok(()),
            Some(_) => Err(denied_by_ec2(identity.principal_arn(), &format!("ec2:{}", asked.operation.name()))),
        }
    }

    fn admit(_: &Api, _: &Asked) -> Result<(), Failure> {
        Ok(())
    }

    async fn answer(api: &Api, asked: Asked, id: &str) -> Result<Bytes, Failure> {
        answer(api, asked, id).await
    }

    /// EC2's code and status.
    fn refusal(failure: Failure) -> Failure {
        let (code, status) = match failure.code {
            "ThrottlingException" => ("RequestLimitExceeded", 503),
            "ServerException" => ("InternalError", 500),
            "SerializationException" => ("MalformedQueryString", 400),
            code => (code, failure.status),
        };
        Failure { code, status, ..failure }
    }

    /// As EC2 says it: one code for whatever is wrong with credentials or signature.
    fn unauthenticated(error: AuthError) -> Failure {
        match error {
            AuthError::SignatureExpired { .. } | AuthError::SignatureNotYetCurrent { .. } | AuthError::ExpiredToken => {
                refuse("RequestExpired", "Request has expired.")
            }
            AuthError::IncompleteSignature { .. } => refuse("IncompleteSignature", error.to_string()),
            _ => Failure::common("AuthFailure", 401, "AWS was not able to validate the provided access credentials"),
        }
    }

    fn render_failure(failure: &Failure, id: &str) -> (Bytes, Option<&'static str>) {
        (query::render_error(DIALECT, failure.code, &failure.message, failure.status < 500, NAMESPACE, id).into(), None)
    }
}

/// Reads a form.
///
/// # Errors
/// `MissingAction`, `InvalidAction`, `UnknownParameter`, `MalformedQueryString`, `InvalidParameterValue`.
fn read(body: &[u8]) -> Result<Asked, Failure> {
    let malformed = |error: &dyn std::fmt::Display| refuse("MalformedQueryString", error.to_string());
    let fields = form::pairs(body).map_err(|error| malformed(&error))?;
    let action = fields.iter().find(|(name, _)| name == "Action").map(|(_, action)| action.as_str());
    let action = action.ok_or_else(|| refuse("MissingAction", "The request must contain the parameter Action"))?;
    let unknown = || refuse("InvalidAction", format!("The action {} is not valid for this web service.", clip(action)));
    let operation = Operation::from_name(action).ok_or_else(unknown)?;
    let input = operation.schema().input;
    let known: BTreeSet<String> = input.members.iter().map(|member| query::field_name(DIALECT, member)).collect();
    for (name, _) in &fields {
        let first = name.split('.').next().unwrap_or_default();
        if !known.contains(first) && !OUTSIDE.contains(&first) {
            return Err(refuse("UnknownParameter", format!("The parameter {} is not recognized", clip(first))));
        }
    }
    let value = query::decode(DIALECT, input, body).map_err(|error| match error {
        DecodeError::Member { .. } => invalid(error.to_string()),
        error => malformed(&error),
    })?;
    Ok(Asked { operation, value })
}

fn clip(text: &str) -> String {
    text.chars().take(128).collect()
}

/// Answers what a form asks for: XML.
///
/// # Errors
/// [`Failure`] with one of EC2's codes, or one that the protocol knows EC2's for.
async fn answer(api: &Api, asked: Asked, id: &str) -> Result<Bytes, Failure> {
    let Asked { operation, value } = asked;
    let given = value.as_object().into_iter().flatten();
    let honoured = honoured(operation);
    for (member, _) in given.filter(|(member, _)| *member != "DryRun") {
        if !honoured.contains(&member.as_str()) {
            return Err(unsupported(format!("Berth does not support the parameter {member} of {operation}")));
        }
    }
    let is_dry = value.get("DryRun") == Some(&Value::Bool(true));
    let request = Request::from_value(operation, value).map_err(|error| invalid(error.to_string()))?;
    request.validate().map_err(|violations| violated(&violations))?;
    if is_dry {
        return Err(Failure::common("DryRunOperation", 412, "Request would have succeeded, but DryRun flag is set."));
    }
    let answer = run(api, request).await?;
    Ok(query::render_response(DIALECT, operation.schema(), &answer, NAMESPACE, id).into())
}

/// The first thing that is wrong, as EC2 says it: it names one.
fn violated(violations: &Violations) -> Failure {
    let is_missing = |constraint: &Constraint| matches!(constraint, Constraint::Required);
    let absent = violations.iter().find(|violation| is_missing(&violation.constraint));
    match (absent, violations.iter().next()) {
        (Some(absent), _) => missing(&absent.path),
        (None, Some(first)) => invalid(first.to_string()),
        (None, None) => invalid(violations.to_string()),
    }
}

macro_rules! actions {
    ($($operation:ident => $module:ident::$function:ident [$($member:literal)*]),+ $(,)?) => {
        /// The members of a request that its action honours; `DryRun` all do.
        fn honoured(operation: Operation) -> &'static [&'static str] {
            match operation {
                $(Operation::$operation => &[$($member),*],)+
            }
        }

        async fn run(api: &Api, request: Request) -> Result<Value, Failure> {
            let written = match request {
                $(Request::$operation(request) => serde_json::to_value($module::$function(api, *request).await?),)+
            };
            written.map_err(|error| Failure::common("InternalError", 500, format!("the answer cannot be rendered: {error}")))
        }
    };
}

actions!(
    AuthorizeSecurityGroupEgress => security_group_rules::authorize_egress ["GroupId" "IpPermissions" "TagSpecifications"],
    AuthorizeSecurityGroupIngress => security_group_rules::authorize_ingress [
        "CidrIp" "FromPort" "GroupId" "GroupName" "IpPermissions" "IpProtocol" "SourceSecurityGroupName" "SourceSecurityGroupOwnerId" "ToPort"
        "TagSpecifications"
    ],
    CreateDefaultVpc => vpcs::create_default [],
    CreateSecurityGroup => security_groups::create ["Description" "GroupName" "VpcId" "TagSpecifications"],
    CreateSubnet => subnets::create ["TagSpecifications" "AvailabilityZone" "AvailabilityZoneId" "CidrBlock" "VpcId"],
    CreateTags => tags::create ["Resources" "Tags"],
    CreateVpc => vpcs::create ["CidrBlock" "TagSpecifications" "InstanceTenancy" "AmazonProvidedIpv6CidrBlock"],
    DeleteSecurityGroup => security_groups::delete ["GroupId" "GroupName"],
    DeleteSubnet => subnets::delete ["SubnetId"],
    DeleteTags => tags::delete ["Resources" "Tags"],
    DeleteVpc => vpcs::delete ["VpcId"],
    DescribeAccountAttributes => places::account_attributes ["AttributeNames"],
    DescribeAvailabilityZones => places::availability_zones ["ZoneNames" "ZoneIds" "AllAvailabilityZones" "Filters"],
    DescribeInstances => instances::describe ["InstanceIds" "Filters" "NextToken" "MaxResults"],
    DescribeInternetGateways => internet_gateways::describe ["NextToken" "MaxResults" "InternetGatewayIds" "Filters"],
    DescribeNetworkInterfaces => network_interfaces::describe ["NextToken" "MaxResults" "NetworkInterfaceIds" "Filters"],
    DescribeRegions => places::regions ["RegionNames" "AllRegions" "Filters"],
    DescribeRouteTables => route_tables::describe ["NextToken" "MaxResults" "RouteTableIds" "Filters"],
    DescribeSecurityGroupRules => security_group_rules::describe ["Filters" "SecurityGroupRuleIds" "NextToken" "MaxResults"],
    DescribeSecurityGroups => security_groups::describe ["GroupIds" "GroupNames" "NextToken" "MaxResults" "Filters"],
    DescribeSubnets => subnets::describe ["Filters" "SubnetIds" "NextToken" "MaxResults"],
    DescribeTags => tags::describe ["Filters" "MaxResults" "NextToken"],
    DescribeVpcAttribute => vpcs::describe_attribute ["Attribute" "VpcId"],
    DescribeVpcs => vpcs::describe ["Filters" "VpcIds" "NextToken" "MaxResults"],
    ModifySecurityGroupRules => security_group_rules::modify ["GroupId" "SecurityGroupRules"],
    ModifySubnetAttribute => subnets::modify_attribute ["MapPublicIpOnLaunch" "SubnetId"],
    ModifyVpcAttribute => vpcs::modify_attribute ["EnableDnsHostnames" "EnableDnsSupport" "VpcId"],
    RevokeSecurityGroupEgress => security_group_rules::revoke_egress ["SecurityGroupRuleIds" "GroupId" "IpPermissions"],
    RevokeSecurityGroupIngress => security_group_rules::revoke_ingress [
        "CidrIp" "FromPort" "GroupId" "GroupName" "IpPermissions" "IpProtocol" "SourceSecurityGroupName" "SourceSecurityGroupOwnerId" "ToPort"
        "SecurityGroupRuleIds"
    ],
);

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(form: &str) -> &'static str {
        read(form.as_bytes()).unwrap_err().code
    }

    #[test]
    fn what_a_form_asks_for_is_read_or_refused() {
        let asked = read(b"Action=DescribeVpcs&Version=2016-11-15&Filter.1.Name=is-default&Filter.1.Value.1=true&MaxResults=5").unwrap();
        assert_eq!(asked.operation, Operation::DescribeVpcs);
        let expected = serde_json::json!({"Filters": [{"Name": "is-default", "Values": ["true"]}], "MaxResults": 5});
        assert_eq!(asked.value, expected);
        assert_eq!(refused("Version=2016-11-15"), "MissingAction");
        assert_eq!(refused("Action=RunInstances"), "InvalidAction");
        assert_eq!(refused("Action=DescribeVpcs&Fliter.1.Name=x"), "UnknownParameter");
        assert_eq!(refused("Action=DescribeVpcs&MaxResults=many"), "InvalidParameterValue");
        assert_eq!(refused("Action=DescribeVpcs&A=%"), "MalformedQueryString");
    }

    #[test]
    fn every_member_that_is_honoured_is_a_member() {
        for operation in Operation::ALL {
            let members: Vec<_> = operation.schema().input.members.iter().map(|member| member.name).collect();
            assert!(honoured(operation).iter().all(|member| members.contains(member)), "{operation}");
        }
    }
}

//! Names of things that other services of AWS keep: roles, subnets, security groups, web ACLs. Only their form is checked; it must
//! never ask whether they exist.

use crate::failure::Failure;

/// Longest ARN that AWS makes.
const MAX_ARN: usize = 2_048;
/// Most subnets of a service. <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_AwsVpcConfiguration.html>
const MAX_SUBNETS: usize = 16;

/// `arn:PARTITION:SERVICE:...`, with a resource that begins with `kind`.
fn is_arn(text: &str, service: &str, kind: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    text.len() <= MAX_ARN
        && text.bytes().all(|b| b.is_ascii_graphic())
        && matches!(parts[..], ["arn", partition, of, _, account, resource]
            if partition.starts_with("aws") && of == service && account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit())
                && resource.strip_prefix(kind).is_some_and(|name| !name.is_empty()))
}

/// The ARN of an IAM role.
pub(crate) fn role(member: &str, text: &str) -> Result<String, Failure> {
    if is_arn(text, "iam", "role/") {
        return Ok(text.to_owned());
    }
    Err(Failure::invalid(format!("Role is not valid: {member} must be the Amazon Resource Name (ARN) of an IAM role.")))
}

/// The ARN of a web ACL of AWS WAF.
pub(crate) fn web_acl(member: &str, text: &str) -> Result<String, Failure> {
    if is_arn(text, "wafv2", "regional/webacl/") {
        return Ok(text.to_owned());
    }
    Err(Failure::invalid(format!("{member} must be the Amazon Resource Name (ARN) of a regional AWS WAF web ACL.")))
}

/// `PREFIX-` and hexadecimal digits or letters, as Amazon EC2's ids are.
fn is_id(text: &str, prefix: &str) -> bool {
    let rest = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
    rest.is_some_and(|rest| (1..=64).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// The id of a security group.
pub(crate) fn security_group(member: &str, text: &str) -> Result<(), Failure> {
    if is_id(text, "sg") { Ok(()) } else { Err(Failure::invalid(format!("{member} must be the ID of a security group (sg-...)."))) }
}

/// Ids of subnets; none means the default VPC's.
pub(crate) fn subnets(member: &str, ids: &[String]) -> Result<(), Failure> {
    distinct(member, ids, MAX_SUBNETS)?;
    if ids.iter().all(|id| is_id(id, "subnet")) {
        return Ok(());
    }
    Err(Failure::invalid(format!("{member} must be IDs of subnets (subnet-...).")))
}

/// A list that names nothing twice and is not too long.
pub(crate) fn distinct(member: &str, items: &[String], most: usize) -> Result<(), Failure> {
    if items.len() > most {
        return Err(Failure::invalid(format!("{member} can have at most {most} items.")));
    }
    let names: std::collections::BTreeSet<_> = items.iter().collect();
    if names.len() == items.len() { Ok(()) } else { Err(Failure::invalid(format!("{member} must not name an item twice."))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_and_web_acls_by_their_arns() {
        for text in ["arn:aws:iam::000000000000:role/ecs", "arn:aws-cn:iam::123456789012:role/service-role/ecs"] {
            assert_eq!(role("roleArn", text), Ok(text.to_owned()));
        }
        for text in ["", "ecs", "arn:aws:iam::000000000000:user/ecs", "arn:aws:iam::000000000000:role/", "arn:aws:iam::1:role/ecs"] {
            assert!(role("roleArn", text).unwrap_err().message.contains("roleArn"), "{text}");
        }
        let acl = "arn:aws:wafv2:us-east-1:000000000000:regional/webacl/a/b";
        assert!(web_acl("webACLArn", acl).is_ok());
        assert!(web_acl("webACLArn", &acl.replace("regional", "global")).is_err());
    }

    #[test]
    fn ids_of_networks() {
        assert!(security_group("m", "sg-0123456789abcdef0").is_ok());
        assert!(security_group("m", "subnet-1").is_err() && security_group("m", "sg-").is_err());
        let ids = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(subnets("m", &ids("subnet-1 subnet-2")).is_ok() && subnets("m", &[]).is_ok());
        assert!(subnets("m", &ids("subnet-1 subnet-1")).is_err());
        assert!(subnets("m", &ids("subnet-1 sg-2")).is_err());
    }
}

//! The generated ECS module against facts of Amazon ECS's API reference.

use berth_shapes::{
    DecodeError, Timestamp, Validate as _,
    ecs::{self, ErrorCode, HealthStatus, LaunchType, Operation, Request, RunTaskResponse, Task},
};

#[test]
fn every_operation_decodes_validates_and_comes_back_by_name() {
    assert_eq!(Operation::ALL.len(), 88);
    for operation in Operation::ALL {
        assert_eq!(Operation::from_name(operation.name()), Some(operation));
        let request = Request::decode(operation, b"{\"unknown\": [null]}").unwrap();
        assert_eq!(request.operation(), operation);
        assert_eq!(Request::decode(operation, b"").unwrap(), request);
        // An error text exists for each request that requires something.
        if let Err(found) = request.validate() {
            assert!(found.to_string().contains("Member must not be null"), "{operation}: {found}");
        }
        assert!(operation.errors().contains(&ErrorCode::InvalidParameter), "{operation}");
    }
    assert_eq!(Operation::from_name("runTask"), None);
    assert_eq!((ecs::TARGET_PREFIX, ecs::SIGNING_NAME), ("AmazonEC2ContainerServiceV20141113", "ecs"));
    assert_eq!((ecs::JSON_VERSION, ecs::API_VERSION), ("1.1", "2014-11-13"));
}

#[test]
fn errors_have_their_names_statuses_and_members() {
    assert_eq!(ErrorCode::ALL.len(), 31);
    for code in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_name(code.name()), Some(code));
        assert_eq!(code.http_status(), if code == ErrorCode::Server { 500 } else { 400 });
    }
    assert_eq!(ErrorCode::ClusterNotFound.name(), "ClusterNotFoundException");
    assert_eq!(ErrorCode::Conflict.members(), ["resourceIds"]);
    assert_eq!(ErrorCode::Client.members(), [""; 0]);
    assert!(Operation::RunTask.errors().contains(&ErrorCode::Blocked));
}

#[test]
fn pages_and_waiters() {
    let page = Operation::ListTasks.paginator().unwrap();
    assert_eq!((page.input_token, page.limit_key, page.result_key), (&["nextToken"][..], Some("maxResults"), &["taskArns"][..]));
    assert_eq!(Operation::RunTask.paginator(), None);
    let stable = ecs::WAITERS.iter().find(|waiter| waiter.name == "ServicesStable").unwrap();
    assert_eq!((stable.operation, stable.delay, stable.max_attempts), ("DescribeServices", 15, 40));
    for waiter in ecs::WAITERS {
        assert!(Operation::from_name(waiter.operation).is_some(), "{}", waiter.name);
    }
}

#[test]
fn a_request_as_the_aws_cli_sends_it() {
    let body = br#"{"cluster":"default","taskDefinition":"web:3","count":2,"launchType":"EC2",
        "overrides":{"containerOverrides":[{"name":"app","environment":[{"name":"A","value":"1"}]}]},
        "networkConfiguration":{"awsvpcConfiguration":{"subnets":["subnet-1"],"assignPublicIp":"DISABLED"}},
        "tags":[{"key":"team","value":"blue"}]}"#;
    let request = Request::decode(Operation::RunTask, body).unwrap();
    request.validate().unwrap();
    let Request::RunTask(run) = request else { panic!("another variant") };
    assert_eq!(run.launch_type, Some(LaunchType::Ec2));
    let sent: serde_json::Value = serde_json::from_slice(body).unwrap();
    assert_eq!(serde_json::to_value(&*run).unwrap(), sent, "nothing is lost and nothing is added");
}

#[test]
fn a_response_as_the_sdks_read_it() {
    let task = Task {
        task_arn: Some("arn:aws:ecs:us-east-1:000000000000:task/default/0".into()),
        created_at: Some(Timestamp::from_millis(1_732_161_234_123)),
        health_status: Some(HealthStatus::UnknownValue),
        version: Some(1),
        ..Default::default()
    };
    let response = RunTaskResponse { tasks: Some(vec![task]), failures: Some(Vec::new()) };
    let expected = r#"{"tasks":[{"createdAt":1732161234.123,"healthStatus":"UNKNOWN","taskArn":"arn:aws:ecs:us-east-1:000000000000:task/default/0","version":1}],"failures":[]}"#;
    assert_eq!(serde_json::to_string(&response).unwrap(), expected);
}

#[test]
fn a_decode_error_names_the_member() {
    let error = Request::decode(Operation::CreateService, br#"{"desiredCount":"two"}"#).unwrap_err();
    assert_eq!(error.to_string(), "desiredCount: STRING_VALUE can not be converted to an Integer");
    assert_eq!(DecodeError::NAME, "SerializationException");
    assert!(ecs::CreateServiceRequest::default().validate().is_err());
}

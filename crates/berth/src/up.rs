//! `berth up`, `berth server`, `berth agent`: starting the roles, and ending them.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use berth_agent::AgentConfig;
use berth_agent::capabilities::FARGATE_CLUSTER;

use crate::data_dir::DataDir;
use crate::failure::Failure;
use crate::node::Node;
use crate::server::Server;
use crate::settings::{AgentSettings, ServerSettings, UpSettings};
use crate::signals::{Order, Signals};
use crate::start_code;

/// How long all tasks together may take to stop: ECS's longest stopTimeout on Fargate is two minutes.
const STOP_PATIENCE: Duration = Duration::from_secs(130);

/// Everything on this machine, in the foreground. Of what the agent is told, cluster, server and key are this Berth's own.
pub(crate) async fn up(settings: UpSettings, mut config: AgentConfig) -> Result<(), Failure> {
    let mut signals = listen()?;
    let server = Server::start(&settings.server).await?;
    let dir = server.data_dir.join("agent");
    config.cluster = "default".to_owned();
    config.backend.clone_from(&server.endpoint);
    config.region.clone_from(&settings.server.region);
    config.access_key = server.root.clone();
    config.data_dir.clone_from(&dir);
    config.fargate = Some(!settings.no_fargate && config.fargate.unwrap_or(true));
    // An own port can be taken by another Berth of this machine; the first one has it, as the official agent would.
    let name = server.data_dir.short_name();
    let started = Node::start(&name, &dir, config, &settings.server.account, settings.runtime).await;
    let node = match started {
        Ok(node) => node,
        Err(failure) => {
            server.shutdown().await;
            return Err(failure);
        }
    };
    tokio::select! {
        () = node.connected() => {
            server.ready();
            greet(&server, Some(&node));
            start_code::let_go_later();
        }
        order = signals.next() => return end(server, node, order, settings.ephemeral).await,
    }
    let order = signals.next().await;
    end(server, node, order, settings.ephemeral).await
}

async fn end(server: Server, node: Node, order: Order, ephemeral: bool) -> Result<(), Failure> {
    if order == Order::Leave && !ephemeral {
        node.leave().await;
        server.shutdown().await;
        println!("Berth has ended; its tasks keep running. `berth up` finds them again, `berth down` stops them.");
        return Ok(());
    }
    let left = server.stop_everything(STOP_PATIENCE).await?;
    if left > 0 {
        tracing::warn!(tasks = left, "some tasks did not stop in time; their containers are removed now");
    }
    let removed = node.remove().await;
    let data_dir = server.data_dir.clone();
    server.shutdown().await;
    removed?;
    if ephemeral {
        std::fs::remove_dir_all(data_dir.path())
            .map_err(|error| Failure::setting("--data-dir", format!("cannot remove {}: {error}", data_dir.path().display())))?;
    }
    println!("Berth has ended and stopped its tasks.");
    Ok(())
}

/// The control plane alone.
pub(crate) async fn server(settings: ServerSettings) -> Result<(), Failure> {
    let mut signals = listen()?;
    let server = Server::start(&settings).await?;
    server.ready();
    greet(&server, None);
    match signals.next().await {
        Order::Leave => {}
        Order::Down => {
            server.stop_everything(STOP_PATIENCE).await?;
        }
    }
    server.shutdown().await;
    Ok(())
}

/// The agent alone, as it is told.
pub(crate) async fn agent(settings: AgentSettings, mut config: AgentConfig) -> Result<(), Failure> {
    let mut signals = listen()?;
    config.fargate = Some(settings.fargate || config.fargate == Some(true));
    if config.fargate == Some(true) {
        config.cluster = FARGATE_CLUSTER.to_owned();
        config.create_cluster = false;
    }
    let dir = DataDir::open(Some(config.data_dir.clone()))?;
    let node = Node::start(&dir.short_name(), dir.path(), config, &settings.account, settings.runtime).await?;
    tokio::select! {
        () = node.connected() => println!("This machine is {}.", node.container_instance_arn()),
        _ = signals.next() => {
            node.leave().await;
            return Ok(());
        }
    }
    start_code::let_go_later();
    signals.next().await;
    node.leave().await;
    Ok(())
}

fn listen() -> Result<Signals, Failure> {
    Signals::listen().map_err(|error| Failure::part("signals", error))
}

/// What a person wants to know now.
fn greet(server: &Server, node: Option<&Node>) {
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let paint = |code: &str, text: &str| if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
    let data_dir = server.data_dir.path().display();
    let mut facts: BTreeMap<u8, (&str, String)> = BTreeMap::new();
    facts.insert(0, ("serves", server.endpoint.clone()));
    facts.insert(1, ("keeps its data in", data_dir.to_string()));
    if let Some(node) = node {
        facts.insert(2, ("runs containers as", node.container_instance_arn()));
    }
    println!("{} {} is up", paint("1;36", "Berth"), env!("CARGO_PKG_VERSION"));
    for (what, value) in facts.values() {
        println!("  {what:<18} {}", paint("1", value));
    }
    println!("Point any AWS tool at it:  {}", paint("32", &format!("eval \"$(berth env --data-dir {data_dir})\"")));
    println!("Then, for example:         {}", paint("32", "aws ecs list-clusters"));
}

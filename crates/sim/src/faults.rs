//! What goes wrong, and is put right again after a while. Which kinds a simulation has at all is drawn first, so that each is also seen
//! without the others. It touches nothing but the world outside the product.

use std::sync::Arc;
use std::time::Duration;

use berth_model::record::Key;
use berth_shapes::ecs::Operation;
use berth_store::Transaction;
use serde_json::json;
use tokio::task::JoinSet;

use crate::chance::Chance;
use crate::host::Host;
use crate::server::Server;
use crate::trace::Trace;
use crate::wire::Way;
use crate::world::World;

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cut,
    Swallow,
    Stick,
    KillAgent,
    Reboot,
    LoseHost,
    KillServer,
    RetireServer,
    CutServer,
    CutFromEtcd,
    LoseEtcdMember,
    FullDisk,
    AgentClock,
    ServerClock,
    Phantom,
    TakePort,
    Deregister,
    Join,
}

const KINDS: [Kind; 18] = [
    Kind::Cut,
    Kind::Swallow,
    Kind::Stick,
    Kind::KillAgent,
    Kind::Reboot,
    Kind::LoseHost,
    Kind::KillServer,
    Kind::RetireServer,
    Kind::CutServer,
    Kind::CutFromEtcd,
    Kind::LoseEtcdMember,
    Kind::FullDisk,
    Kind::AgentClock,
    Kind::ServerClock,
    Kind::Phantom,
    Kind::TakePort,
    Kind::Deregister,
    Kind::Join,
];
/// Most hosts that burn down.
const MOST_LOST: usize = 2;

/// Does harm until `over`; returns when all of it has been put right that can be.
pub async fn run(world: Arc<World>, chance: Chance) {
    let kinds: Vec<_> = KINDS.iter().copied().filter(|_| chance.per_mille(500)).collect();
    world.trace.line(format_args!("faults: {kinds:?}"));
    let mut lasting = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = world.desk.over.cancelled() => break,
            () = tokio::time::sleep(chance.millis(300, 8_000)) => {}
        }
        if kinds.is_empty() {
            continue;
        }
        begin(&world, &chance, *chance.pick(&kinds), &mut lasting).await;
        while lasting.try_join_next().is_some() {}
    }
    while lasting.join_next().await.is_some() {}
}

async fn begin(world: &Arc<World>, chance: &Chance, kind: Kind, lasting: &mut JoinSet<()>) {
    let hosts: Vec<Arc<Host>> = world.hosts.lock().iter().filter(|host| !host.is_lost()).cloned().collect();
    if hosts.is_empty() {
        return;
    }
    let host = Arc::clone(chance.pick(&hosts));
    let number = host.number;
    let (trace, last) = (world.trace.clone(), chance.millis(0, 25_000));
    let server = Arc::clone(chance.pick(&world.servers));
    match kind {
        Kind::Cut => {
            trace.line(format_args!("host {number}: connections break"));
            host.net.cut();
        }
        Kind::Swallow | Kind::Stick => {
            let way = if kind == Kind::Stick { Way::Stuck } else { Way::Swallows };
            trace.line(format_args!("host {number}: the way {way:?}"));
            host.net.set_way(way);
            lasting.spawn(async move {
                tokio::time::sleep(last).await;
                if !host.is_lost() {
                    host.net.set_way(Way::Open);
                    trace.line(format_args!("host {number}: the way is open"));
                }
            });
        }
        Kind::KillAgent => {
            host.kill_agent().await;
            lasting.spawn(async move {
                tokio::time::sleep(last).await;
                host.start_agent();
            });
        }
        Kind::Reboot => {
            host.reboot().await;
            lasting.spawn(async move {
                tokio::time::sleep(last).await;
                host.start_agent();
            });
        }
        Kind::LoseHost => {
            let lost = world.hosts.lock().iter().filter(|host| host.is_lost()).count();
            if lost < MOST_LOST && chance.per_mille(300) {
                host.lose().await;
            }
        }
        Kind::KillServer | Kind::RetireServer | Kind::CutServer | Kind::CutFromEtcd => {
            harm_server(kind, server, &trace, last, lasting).await
        }
        Kind::LoseEtcdMember => {
            if let Some(cell) = server.home.cell().cloned() {
                let member = cell.set_down(chance.bits(), true);
                trace.line(format_args!("member {member} of etcd is away"));
                lasting.spawn(async move {
                    tokio::time::sleep(last / 2).await;
                    cell.set_down(member as u64, false);
                    trace.line(format_args!("member {member} of etcd is back"));
                });
            }
        }
        Kind::FullDisk => {
            trace.line(format_args!("the disk is full"));
            server.home.set_full(true);
            lasting.spawn(async move {
                tokio::time::sleep(last / 5).await;
                server.home.set_full(false);
                trace.line(format_args!("the disk has room"));
            });
        }
        Kind::AgentClock => jump(&host.clock, chance, &format!("host {number}"), &trace),
        Kind::ServerClock => jump(&server.clock, chance, &format!("server {}", server.number), &trace),
        Kind::Phantom => {
            let (world, chance) = (Arc::clone(world), chance.part("phantom", chance.bits()));
            lasting.spawn(phantom(world, chance));
        }
        Kind::TakePort => {
            let port = u16::try_from(8_000 + chance.below(2)).unwrap_or(8_000);
            trace.line(format_args!("host {number}: something takes port {port}"));
            host.machine.set_taken(port, true);
            lasting.spawn(async move {
                tokio::time::sleep(last).await;
                host.machine.set_taken(port, false);
            });
        }
        Kind::Deregister => {
            let (arn, force) = (host.arn(), chance.per_mille(600));
            if !arn.is_empty() && chance.per_mille(400) {
                trace.line(format_args!("host {number}: somebody deregisters it, force {force}"));
                let request = json!({"containerInstance": arn, "force": force});
                let _ = world.desk.call(Operation::DeregisterContainerInstance, request).await;
            }
        }
        Kind::Join => {
            if hosts.len() < 10 {
                world.join_host(chance, false);
            }
        }
    }
}

async fn harm_server(kind: Kind, server: Arc<Server>, trace: &Trace, last: Duration, lasting: &mut JoinSet<()>) {
    let (number, trace) = (server.number, trace.clone());
    match kind {
        Kind::CutServer => {
            trace.line(format_args!("server {number}: nobody reaches it"));
            server.way.send_replace(Way::Swallows);
            lasting.spawn(async move {
                tokio::time::sleep(last).await;
                server.way.send_replace(Way::Open);
                trace.line(format_args!("server {number}: it is reached again"));
            });
        }
        Kind::CutFromEtcd => {
            if server.home.cell().is_none() {
                return;
            }
            trace.line(format_args!("server {number}: it does not reach etcd"));
            *server.way_to_etcd.lock() = Way::Swallows;
            lasting.spawn(async move {
                tokio::time::sleep(last).await;
                *server.way_to_etcd.lock() = Way::Open;
                trace.line(format_args!("server {number}: it reaches etcd again"));
            });
        }
        Kind::RetireServer => {
            server.retire().await;
            lasting.spawn(async move {
                tokio::time::sleep(last / 2).await;
                server.ensure().await;
            });
        }
        _ => {
            server.crash();
            lasting.spawn(async move {
                tokio::time::sleep(last / 2).await;
                server.ensure().await;
            });
        }
    }
}

fn jump(clock: &crate::clock::SimClock, chance: &Chance, whose: &str, trace: &Trace) {
    let most = *chance.pick(&[200, 3_000, 30_000, 600_000]);
    let millis = i64::try_from(chance.within(1, most)).unwrap_or(1) * if chance.per_mille(500) { 1 } else { -1 };
    trace.line(format_args!("{whose}: the clock jumps by {millis} ms"));
    clock.jump(millis);
}

/// Another peer, of which only the commits are seen: it counts versions up.
async fn phantom(world: Arc<World>, chance: Chance) {
    for _ in 0..chance.within(1, 60) {
        tokio::time::sleep(Duration::from_millis(chance.below(80))).await;
        let mut keys: Vec<Key> = world.checker.instances().iter().map(|instance| Key::ContainerInstance(instance.id)).collect();
        keys.extend(world.checker.services().iter().map(|service| Key::Service(service.cluster.clone(), service.name.clone())));
        keys.extend(world.checker.tasks().iter().rev().take(5).map(|task| Key::Task(task.id)));
        if keys.is_empty() {
            return;
        }
        let mut transaction = Transaction::new();
        transaction.touch(chance.pick(&keys).clone());
        // It may lose as anybody may.
        let _ = chance.pick(&world.servers).commit(transaction).await;
    }
}

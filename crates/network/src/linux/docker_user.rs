//! Lets links of ours through Docker's forward chain, whose policy is to drop what it does not know.
//!
//! By two marked rules in the chain `DOCKER-USER`, which Docker keeps for others; what our own chains restrict stays restricted.

use std::fs;
use std::path::Path;

use nix::errno::Errno;

use super::expression::{Links, Side};
use super::netlink::{NetlinkError, Socket};
use super::nft::{Batch, RULE_HANDLE, RULE_USER_DATA, get_chain, list_rules};

const TABLE: &str = "filter";
const CHAIN: &str = "DOCKER-USER";

/// Lets links through; `mark` is the name by which the rules are known again. Returns whether there is such a chain. Does nothing
/// where the rules already stand.
///
/// # Errors
/// The kernel's refusal.
pub fn join(socket: &mut Socket, mark: &str, links: Links<'_>) -> Result<bool, NetlinkError> {
    let Some(handles) = ours(socket, mark)? else { return Ok(false) };
    if handles.len() == 2 {
        return Ok(true);
    }
    leave(socket, mark)?;
    let mut batch = Batch::new(libc::NFPROTO_IPV4, TABLE);
    for side in [Side::In, Side::Out] {
        // At the head, before the `return` that Docker puts at the end.
        batch.marked_rule_first(CHAIN, &comment(mark), |e| e.link(side, links, true).accept());
    }
    socket.call(&batch.finish()).map(|_| true)
}

/// Takes the rules out again.
///
/// # Errors
/// The kernel's refusal.
pub fn leave(socket: &mut Socket, mark: &str) -> Result<(), NetlinkError> {
    let handles = ours(socket, mark)?.unwrap_or_default();
    if handles.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new(libc::NFPROTO_IPV4, TABLE);
    handles.iter().for_each(|handle| batch.delete_rule(CHAIN, handle));
    socket.call(&batch.finish()).map(drop)
}

/// [`join`] at the opening of a network. Failing leaves the machine as Docker made it, which may still be enough; so it is told, not fatal.
pub fn pass(socket: &mut Socket, mark: &str, links: Links<'_>) {
    match join(socket, mark, links) {
        Ok(true) => {}
        Ok(false) => {
            let legacy = fs::read_to_string("/proc/net/ip_tables_names").is_ok_and(|names| names.lines().any(|name| name == "filter"));
            if legacy && Path::new("/proc/sys/net/ipv4/conf/docker0").exists() {
                tracing::warn!(
                    "Docker uses iptables-legacy here; if containers cannot reach other machines, let {links} through by \
                     `iptables-legacy -I DOCKER-USER -i <link> -j ACCEPT` and the same with -o"
                );
            }
        }
        Err(error) => tracing::warn!(%error, "Docker's forward chain may drop traffic of containers"),
    }
}

/// Handles of our rules in Docker's chain, none where there is no such chain.
fn ours(socket: &mut Socket, mark: &str) -> Result<Option<Vec<Vec<u8>>>, NetlinkError> {
    match socket.call(&get_chain(libc::NFPROTO_IPV4, TABLE, CHAIN)) {
        Err(error) if error.errno == Errno::ENOENT => return Ok(None),
        other => drop(other?),
    }
    let mark = comment(mark);
    let replies = socket.dump(&list_rules(libc::NFPROTO_IPV4, TABLE, CHAIN))?;
    let ours = replies.iter().filter_map(|rule| {
        rule.attributes(4).find(|(kind, value)| *kind == RULE_USER_DATA && *value == mark)?;
        rule.attributes(4).find(|(kind, _)| *kind == RULE_HANDLE).map(|(_, value)| value.to_vec())
    });
    Ok(Some(ours.collect()))
}

/// A text as nft's and iptables' own comment.
fn comment(mark: &str) -> Vec<u8> {
    let mut comment = vec![0, u8::try_from(mark.len() + 1).expect("a table's name is short")];
    comment.extend_from_slice(mark.as_bytes());
    comment.push(0);
    comment
}

//! Where the program runs: at the queue of what comes in by a link, which is what the task at its other end sends.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::super::netlink::{ACK, Attributes, CREATE, DUMP, EXCLUSIVE, NetlinkError, Request, Socket, attribute, word};

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETSTATS: u16 = 94;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
/// What the program returns decides.
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
const TC_H_CLSACT: u32 = 0xffff_fff1;
const TC_H_INGRESS: u32 = 0xffff_fff2;
const IFLA_STATS_LINK_64: u16 = 1;
/// Where received bytes are in the kernel's `struct rtnl_link_stats64`.
const RECEIVED_BYTES: usize = 16;

fn header(link: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut header = [0; 20];
    for (at, number) in [(4, link), (8, handle), (12, parent), (16, info)] {
        header[at..at + 4].copy_from_slice(&number.to_ne_bytes());
    }
    header
}

/// Has a program run for each IPv4 packet that comes in by a link.
///
/// # Errors
/// The step that was refused; `ENODEV` if there is no such link.
pub fn attach(socket: &mut Socket, link: u32, program: BorrowedFd<'_>) -> Result<(), NetlinkError> {
    let mut request = Request::new();
    request.message(
        "give the link a queue",
        RTM_NEWQDISC,
        ACK | CREATE | EXCLUSIVE,
        &header(link, TC_H_CLSACT & 0xffff_0000, TC_H_CLSACT, 0),
        |m| {
            m.text(TCA_KIND, "clsact");
        },
    );
    let info = 1 << 16 | u32::from((libc::ETH_P_IP as u16).to_be());
    request.message("attach the program", RTM_NEWTFILTER, ACK | CREATE | EXCLUSIVE, &header(link, 0, TC_H_INGRESS, info), |m| {
        m.text(TCA_KIND, "bpf");
        m.nest(TCA_OPTIONS, |m| {
            m.bytes(TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes());
            m.text(TCA_BPF_NAME, "berth_shortcut");
            m.ne32(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT);
        });
    });
    socket.call(&request).map(drop)
}

/// Takes everything off a link's queues; that there is nothing, or no such link, is no error.
///
/// # Errors
/// The kernel's refusal.
pub fn detach(socket: &mut Socket, link: u32) -> Result<(), NetlinkError> {
    let mut request = Request::new();
    let header = header(link, TC_H_CLSACT & 0xffff_0000, TC_H_CLSACT, 0);
    request.message("take the link's queue away", RTM_DELQDISC, ACK, &header, |_: &mut Attributes<'_>| {});
    match socket.call(&request) {
        Err(error) if ![Errno::ENOENT, Errno::ENODEV, Errno::EINVAL].contains(&error.errno) => Err(error),
        _ => Ok(()),
    }
}

/// How many bytes ever came in, by link.
///
/// # Errors
/// The kernel's refusal.
pub fn received(socket: &mut Socket) -> Result<BTreeMap<u32, u64>, NetlinkError> {
    let mut request = Request::new();
    let mut header = [0; 12];
    header[8..12].copy_from_slice(&(1_u32 << (IFLA_STATS_LINK_64 - 1)).to_ne_bytes());
    request.message("count what came in", RTM_GETSTATS, DUMP, &header, |_: &mut Attributes<'_>| {});
    let replies = socket.dump(&request)?;
    let counted = replies.iter().filter_map(|reply| {
        let link = u32::from_ne_bytes(word(reply.body.get(4..)?)?);
        let counts = attribute(reply.body.get(12..)?, IFLA_STATS_LINK_64)?;
        let bytes = counts.get(RECEIVED_BYTES..RECEIVED_BYTES + 8)?.try_into().ok()?;
        Some((link, u64::from_ne_bytes(bytes)))
    });
    Ok(counted.collect())
}

//! What comes of a request: an answer out of the table, a question to others, or nothing. Pure, and never a panic whatever the bytes are.

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::HINFO;
use hickory_proto::rr::{DNSClass, Name, RData, Record as WireRecord, RecordType};

use super::random::Random;
use super::reply::{self, MOST_UDP};
use super::table::{Node, Routing, Set, Table};

/// Most answers that a question gets of a name with multivalue routing.
/// <https://docs.aws.amazon.com/cloud-map/latest/api/API_DnsConfig.html>
pub const MAX_MULTIVALUE_ANSWERS: usize = 8;
/// How long a resolver may remember that a name is not there, in seconds. Short: a service's first healthy task makes its name.
pub const NEGATIVE_TTL: u32 = 15;
/// Most names that one answer leads through; more is taken for a ring.
const LONGEST_CHAIN: usize = 8;
/// Most records besides the question that a request may have: EDNS, a signature, and some to spare. Asked before they are read, because
/// room is made for as many as a request says.
const MOST_ADDITIONAL: u16 = 8;
/// Most bytes of a message.
const MOST_TCP: usize = u16::MAX as usize;

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In one datagram, and so must the answer.
    Udp,
    /// Over a connection.
    Tcp,
}

/// What comes of a request.
#[derive(Debug)]
pub enum Verdict {
    /// This is sent back.
    Answer(Vec<u8>),
    /// Nothing is: it is no request.
    Silence,
    /// The name is nobody's here: somebody else is asked, with the request as it is.
    Forward,
    /// The answer leads to a name that is nobody's here.
    Chase(Box<Chase>),
}

/// An answer that is not whole before somebody else was asked.
#[derive(Debug)]
pub struct Chase {
    message: Message,
    limit: usize,
    target: Name,
    kind: RecordType,
}

impl Chase {
    /// The question to ask, with a number that cannot be guessed as its id.
    #[must_use]
    pub fn request(&self, id: u16) -> Option<Vec<u8>> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(hickory_proto::op::Query::query(self.target.clone(), self.kind));
        let mut edns = Edns::new();
        edns.set_max_payload(MOST_UDP);
        message.set_edns(edns);
        message.to_vec().ok()
    }

    /// The whole answer with what was answered to [`Chase::request`]; SERVFAIL if nothing was, or nothing that can be read.
    #[must_use]
    pub fn finish(mut self, answer: Option<&[u8]>) -> Option<Vec<u8>> {
        match answer.filter(|bytes| is_plausible(bytes)).and_then(|bytes| Message::from_vec(bytes).ok()) {
            Some(found) => {
                self.message.metadata.response_code = found.metadata.response_code;
                // The beginning of the chain is ours, its end is not (RFC 1035, 4.1.1).
                self.message.add_answers(found.answers);
                self.message.add_authorities(found.authorities);
            }
            None => {
                self.message.metadata.response_code = ResponseCode::ServFail;
                self.message.answers.clear();
            }
        }
        reply::encode(self.message, self.limit)
    }
}

/// Decides what comes of a request. `random` chooses among answers and orders them.
#[must_use]
pub fn verdict(table: &Table, request: &[u8], transport: Transport, random: &mut Random) -> Verdict {
    let refuse = |code| reply::bare(request, code, reply::question_end(request)).map_or(Verdict::Silence, Verdict::Answer);
    let Some(header) = request.get(..12) else { return Verdict::Silence };
    if header[2] & 0x80 != 0 {
        return Verdict::Silence;
    }
    if header[2] & 0x78 != 0 {
        return refuse(ResponseCode::NotImp);
    }
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if count(4) != 1 || count(6) != 0 || count(8) != 0 || count(10) > MOST_ADDITIONAL {
        return refuse(ResponseCode::FormErr);
    }
    let Ok(asked) = Message::from_vec(request) else { return refuse(ResponseCode::FormErr) };
    let Some(query) = asked.queries.first() else { return refuse(ResponseCode::FormErr) };
    let limit = match transport {
        Transport::Udp => reply::udp_limit(asked.edns.as_ref()),
        Transport::Tcp => MOST_TCP,
    };
    let name = query.name();
    let node = table.node(name);
    let Some(zone) = node.map(|node| node.zone).or_else(|| table.zone_of(name)) else {
        return match query.query_class() {
            DNSClass::IN => Verdict::Forward,
            // Such as CH, by which servers are asked who they are.
            _ => refuse(ResponseCode::Refused),
        };
    };
    let mut message = Message::new(asked.metadata.id, MessageType::Response, OpCode::Query);
    message.metadata = Metadata::response_from_request(&asked.metadata);
    message.metadata.authoritative = true;
    message.metadata.recursion_available = true;
    if let Some(edns) = &asked.edns {
        let mut own = Edns::new();
        own.set_max_payload(MOST_UDP);
        message.set_edns(own);
        if edns.version() != 0 {
            message.metadata.response_code = ResponseCode::BADVERS;
        }
    }
    message.add_query(query.clone());
    let kind = query.query_type();
    let is_transfer = matches!(kind, RecordType::AXFR | RecordType::IXFR);
    if message.metadata.response_code == ResponseCode::NoError {
        if query.query_class() != DNSClass::IN || is_transfer {
            message.metadata.response_code = ResponseCode::Refused;
        } else if let Some(target) = fill(&mut message, table, zone, node, name.clone(), kind, random) {
            return Verdict::Chase(Box::new(Chase { message, limit, target, kind }));
        }
    }
    reply::encode(message, limit).map_or_else(|| refuse(ResponseCode::ServFail), Verdict::Answer)
}

/// Fills in answers, or why there are none. Returns the name that the answer leads to, if that is nobody's here.
fn fill(
    message: &mut Message,
    table: &Table,
    zone: usize,
    node: Option<&Node>,
    name: Name,
    kind: RecordType,
    random: &mut Random,
) -> Option<Name> {
    let (mut zone, mut node, mut name) = (zone, node, name);
    for _ in 0..LONGEST_CHAIN {
        let Some(found) = node else {
            message.metadata.response_code = ResponseCode::NXDomain;
            break;
        };
        if kind == RecordType::ANY {
            // All that one has is an invitation to those who send answers to somebody else (RFC 8482).
            let data = RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()));
            message.add_answer(WireRecord::from_rdata(name, NEGATIVE_TTL, data));
            return None;
        }
        if kind == RecordType::SOA && table.apex(zone).soa.name == name {
            message.add_answer(table.apex(zone).soa.clone());
            return None;
        }
        if let Some(set) = found.sets.iter().find(|set| set.kind == kind) {
            add(message, set, &name, random);
            if kind == RecordType::SRV {
                add_addresses(message, table, random);
            }
            return None;
        }
        let Some(alias) = found.sets.iter().find(|set| set.kind == RecordType::CNAME) else { break };
        // Never two for one name (RFC 2181, 10.1).
        let Some(RData::CNAME(target)) = alias.data.get(random.below(alias.data.len())) else { break };
        message.add_answer(WireRecord::from_rdata(name, alias.ttl, RData::CNAME(target.clone())));
        name = target.0.clone();
        node = table.node(&name);
        match node.map(|node| node.zone).or_else(|| table.zone_of(&name)) {
            Some(inside) => zone = inside,
            None => return Some(name),
        }
    }
    message.add_authority(table.apex(zone).soa.clone());
    None
}

/// Adds the answers of a set that one question gets.
fn add(message: &mut Message, set: &Set, name: &Name, random: &mut Random) {
    let wanted = match set.routing {
        _ if set.kind == RecordType::CNAME => 1,
        Routing::Weighted => 1,
        Routing::Multivalue => MAX_MULTIVALUE_ANSWERS,
    };
    for at in drawn(set.data.len(), wanted, random) {
        message.answers.push(WireRecord::from_rdata(name.clone(), set.ttl, set.data[at].clone()));
    }
}

/// Adds the addresses of what SRV records point at, so that nobody need ask again.
fn add_addresses(message: &mut Message, table: &Table, random: &mut Random) {
    let mut additionals = Vec::new();
    for answer in &message.answers {
        let RData::SRV(srv) = &answer.data else { continue };
        let Some(node) = table.node(&srv.target) else { continue };
        if additionals.iter().any(|record: &WireRecord| record.name == srv.target) {
            continue;
        }
        for set in node.sets.iter().filter(|set| matches!(set.kind, RecordType::A | RecordType::AAAA)) {
            for at in drawn(set.data.len(), MAX_MULTIVALUE_ANSWERS, random) {
                additionals.push(WireRecord::from_rdata(srv.target.clone(), set.ttl, set.data[at].clone()));
            }
        }
    }
    message.additionals = additionals;
}

/// At most `wanted` different numbers below `count`, any of them as likely as the others, in random order. `wanted` is at most
/// [`MAX_MULTIVALUE_ANSWERS`].
fn drawn(count: usize, wanted: usize, random: &mut Random) -> impl Iterator<Item = usize> {
    let mut chosen = [0; MAX_MULTIVALUE_ANSWERS];
    let wanted = wanted.min(count).min(MAX_MULTIVALUE_ANSWERS);
    // Floyd's way to draw without putting back, which never looks at all that there are; then they are shuffled.
    for (taken, top) in (count - wanted..count).enumerate() {
        let one = random.below(top + 1);
        chosen[taken] = if chosen[..taken].contains(&one) { top } else { one };
    }
    for at in (1..wanted).rev() {
        chosen.swap(at, random.below(at + 1));
    }
    chosen.into_iter().take(wanted)
}

/// Whether a foreign answer may be read at all: no more records than its bytes can hold.
fn is_plausible(bytes: &[u8]) -> bool {
    const SMALLEST_RECORD: usize = 11;
    let counts = bytes.get(4..12).map(|counts| counts.chunks_exact(2).map(|two| usize::from(two[0]) << 8 | usize::from(two[1])));
    counts.is_some_and(|counts| counts.sum::<usize>() <= 1 + bytes.len() / SMALLEST_RECORD)
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;

//! The messages of nftables that all tables here are made of: batches, sets, chains, rules, elements.
//!
//! Knows no table's meaning. Numbers are of `linux/netfilter/nf_tables.h`.

use std::net::Ipv4Addr;

use super::expression::Expressions;
use super::netlink::{ACK, APPEND, Attributes, CREATE, Request};

const NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = NFTABLES << 8;
const DELETE_TABLE: u16 = NFTABLES << 8 | 2;
const NEW_CHAIN: u16 = NFTABLES << 8 | 3;
const GET_CHAIN: u16 = NFTABLES << 8 | 4;
const DELETE_CHAIN: u16 = NFTABLES << 8 | 5;
const NEW_RULE: u16 = NFTABLES << 8 | 6;
const GET_RULE: u16 = NFTABLES << 8 | 7;
const DELETE_RULE: u16 = NFTABLES << 8 | 8;
const NEW_SET: u16 = NFTABLES << 8 | 9;
const DELETE_SET: u16 = NFTABLES << 8 | 11;
const NEW_ELEMENTS: u16 = NFTABLES << 8 | 12;
const DELETE_ELEMENTS: u16 = NFTABLES << 8 | 14;
const RULE_EXPRESSIONS: u16 = 4;
const SET_MAP: u32 = 8;
const VERDICT_TYPE: u32 = 0xffff_ff00;
const JUMP: u32 = (-3i32).cast_unsigned();

/// Attributes of a rule.
pub const RULE_TABLE: u16 = 1;
/// The chain of a rule.
pub const RULE_CHAIN: u16 = 2;
/// The kernel's number of a rule.
pub const RULE_HANDLE: u16 = 3;
/// Bytes that the kernel keeps for whoever made the rule.
pub const RULE_USER_DATA: u16 = 7;

/// An attribute's length has 16 bits, an element takes at most 300 bytes (a key of 40 and a chain's name).
const ELEMENTS_PER_MESSAGE: usize = 200;

/// A hook of the kernel's: type of the chain, hook, priority.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting.
    pub hook: u32,
    /// Lower comes first.
    pub priority: i32,
}

/// What a set's key or a map's datum is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// The data type's number in `nft`, for those who list it.
    pub kind: u32,
    /// Bytes.
    pub length: u32,
}

/// What a set leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leads {
    /// Nowhere: a set.
    Nowhere,
    /// To a verdict.
    Verdict,
    /// To data.
    Data(Form),
}

/// What one element leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datum<'a> {
    /// Nothing.
    Nothing,
    /// A jump to a chain.
    Jump(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// An IPv4 address.
    Address(Ipv4Addr),
}

/// One transaction on one table. Nothing of it happens, or all.
#[derive(Debug)]
pub struct Batch<'a> {
    request: Request,
    header: [u8; 4],
    table: &'a str,
    is_begun: bool,
}

impl<'a> Batch<'a> {
    /// An empty transaction on a table of a family (`NFPROTO_IPV4`, `NFPROTO_INET`).
    pub fn new(family: i32, table: &'a str) -> Self {
        let mut request = Request::new();
        request.message("begin an nft transaction", BATCH_BEGIN, 0, &batch_header(), |_: &mut Attributes<'_>| {});
        Self { request, header: header(family), table, is_begun: false }
    }

    /// The finished transaction.
    pub fn finish(mut self) -> Request {
        self.request.message("end an nft transaction", BATCH_END, 0, &batch_header(), |_: &mut Attributes<'_>| {});
        self.request
    }

    /// Makes the table, empty whatever it held.
    pub fn table_anew(&mut self) {
        let table = self.table;
        // A table can only be deleted if it exists, hence the first of the three.
        self.message("make the nft table", NEW_TABLE, CREATE, |m| m.text(1, table));
        self.message("clear the nft table", DELETE_TABLE, 0, |m| m.text(1, table));
        self.message("make the nft table again", NEW_TABLE, CREATE, |m| m.text(1, table));
    }

    /// Deletes the table.
    pub fn delete_table(&mut self) {
        let table = self.table;
        self.message("delete the nft table", DELETE_TABLE, 0, |m| m.text(1, table));
    }

    /// Makes a set or map; one that is there stays.
    pub fn set(&mut self, name: &str, key: Form, leads: Leads) {
        let table = self.table;
        self.message("make an nft set", NEW_SET, CREATE, |m| {
            m.text(1, table);
            m.text(2, name);
            m.be32(3, if leads == Leads::Nowhere { 0 } else { SET_MAP });
            m.be32(4, key.kind);
            m.be32(5, key.length);
            match leads {
                Leads::Nowhere => {}
                Leads::Verdict => m.be32(6, VERDICT_TYPE),
                Leads::Data(form) => {
                    m.be32(6, form.kind);
                    m.be32(7, form.length);
                }
            }
            m.be32(10, 1);
        });
    }

    /// Deletes a set that no rule uses.
    pub fn delete_set(&mut self, name: &str) {
        let table = self.table;
        self.message("delete an nft set", DELETE_SET, 0, |m| {
            m.text(1, table);
            m.text(2, name);
        });
    }

    /// Makes a chain; with a hook it is one where the kernel begins.
    pub fn chain(&mut self, name: &str, hook: Option<Hook>) {
        let table = self.table;
        self.message("make an nft chain", NEW_CHAIN, CREATE, |m| {
            m.text(1, table);
            m.text(3, name);
            if let Some(Hook { kind, hook, priority }) = hook {
                m.text(7, kind);
                m.nest(4, |m| {
                    m.be32(1, hook);
                    m.be32(2, priority.cast_unsigned());
                });
            }
        });
    }

    /// Deletes a chain that nothing leads to, with its rules.
    pub fn delete_chain(&mut self, name: &str) {
        let table = self.table;
        self.message("delete an nft chain", DELETE_CHAIN, 0, |m| {
            m.text(1, table);
            m.text(3, name);
        });
    }

    /// Takes all rules out of a chain.
    pub fn clear_chain(&mut self, name: &str) {
        let table = self.table;
        self.message("clear an nft chain", DELETE_RULE, 0, |m| {
            m.text(RULE_TABLE, table);
            m.text(RULE_CHAIN, name);
        });
    }

    /// Puts a rule at the end of a chain.
    pub fn rule(&mut self, chain: &str, expressions: impl FnOnce(&mut Expressions<'_, '_>)) {
        let table = self.table;
        self.message("make an nft rule", NEW_RULE, CREATE | APPEND, |m| {
            m.text(RULE_TABLE, table);
            m.text(RULE_CHAIN, chain);
            m.nest(RULE_EXPRESSIONS, |m| expressions(&mut Expressions(m)));
        });
    }

    /// Puts a marked rule at the head of a chain.
    pub fn marked_rule_first(&mut self, chain: &str, mark: &[u8], expressions: impl FnOnce(&mut Expressions<'_, '_>)) {
        let table = self.table;
        // Without APPEND a rule goes to the head of its chain.
        self.message("put a rule at the head of an nft chain", NEW_RULE, CREATE, |m| {
            m.text(RULE_TABLE, table);
            m.text(RULE_CHAIN, chain);
            m.nest(RULE_EXPRESSIONS, |m| expressions(&mut Expressions(m)));
            m.bytes(RULE_USER_DATA, mark);
        });
    }

    /// Takes one rule out of a chain.
    pub fn delete_rule(&mut self, chain: &str, handle: &[u8]) {
        let table = self.table;
        self.message("take a rule out of an nft chain", DELETE_RULE, 0, |m| {
            m.text(RULE_TABLE, table);
            m.text(RULE_CHAIN, chain);
            m.bytes(RULE_HANDLE, handle);
        });
    }

    /// Adds elements to a set or map. An element that is there with the same datum is no error.
    pub fn add_elements<'e>(&mut self, set: &str, elements: impl Iterator<Item = (&'e [u8], Datum<'e>)>) {
        self.elements("add elements to an nft set", NEW_ELEMENTS, CREATE, set, elements);
    }

    /// Takes elements out of a set or map; all must be there.
    pub fn delete_elements<'e>(&mut self, set: &str, keys: impl Iterator<Item = &'e [u8]>) {
        self.elements("take elements out of an nft set", DELETE_ELEMENTS, 0, set, keys.map(|key| (key, Datum::Nothing)));
    }

    fn elements<'e>(
        &mut self,
        step: &'static str,
        kind: u16,
        flags: u16,
        set: &str,
        elements: impl Iterator<Item = (&'e [u8], Datum<'e>)>,
    ) {
        let (table, mut elements) = (self.table, elements.peekable());
        while elements.peek().is_some() {
            self.message(step, kind, flags, |m| {
                m.text(1, table);
                m.text(2, set);
                m.nest(3, |m| elements.by_ref().take(ELEMENTS_PER_MESSAGE).for_each(|(key, datum)| element(m, key, datum)));
            });
        }
    }

    fn message(&mut self, step: &'static str, kind: u16, flags: u16, attributes: impl FnOnce(&mut Attributes<'_>)) {
        // One answer says that all of it was done: thousands would not fit where they are kept until they are read. A refusal comes unasked.
        let answer = if self.is_begun { 0 } else { ACK };
        self.is_begun = true;
        self.request.message(step, kind, flags | answer, &self.header, attributes);
    }
}

fn element(m: &mut Attributes<'_>, key: &[u8], datum: Datum<'_>) {
    m.nest(1, |m| {
        m.nest(1, |m| m.bytes(1, key));
        match datum {
            Datum::Nothing => {}
            Datum::Bytes(bytes) => m.nest(2, |m| m.bytes(1, bytes)),
            Datum::Address(address) => m.nest(2, |m| m.bytes(1, &address.octets())),
            Datum::Jump(chain) => m.nest(2, |m| {
                m.nest(2, |m| {
                    m.be32(1, JUMP);
                    m.text(2, chain);
                });
            }),
        }
    });
}

/// A request for one chain.
pub fn get_chain(family: i32, table: &str, chain: &str) -> Request {
    let mut request = Request::new();
    request.message("look for an nft chain", GET_CHAIN, ACK, &header(family), |m| {
        m.text(1, table);
        m.text(3, chain);
    });
    request
}

/// A request for the rules of one chain.
pub fn list_rules(family: i32, table: &str, chain: &str) -> Request {
    let mut request = Request::new();
    request.message("list an nft chain", GET_RULE, super::netlink::DUMP, &header(family), |m| {
        m.text(RULE_TABLE, table);
        m.text(RULE_CHAIN, chain);
    });
    request
}

fn header(family: i32) -> [u8; 4] {
    [u8::try_from(family).expect("a family's number is small"), 0, 0, 0]
}

fn batch_header() -> [u8; 4] {
    let [high, low] = NFTABLES.to_be_bytes();
    [0, 0, high, low]
}

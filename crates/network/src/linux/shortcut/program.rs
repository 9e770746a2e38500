//! The program that runs at a task's link for each IPv4 packet that the task sends, as instructions of the kernel's virtual machine.
//!
//! What it knows as a flow it hands straight to the receiver's end of its pair. Of all else it counts the bytes of each TCP flow, and lets it
//! go its way. A packet that begins or ends a connection takes it off the shortcut in both directions and goes the long way itself.
//!
//! Pure. <https://docs.kernel.org/bpf/standardization/instruction-set.html>

use std::os::fd::{AsRawFd, BorrowedFd};

/// An instruction as the kernel reads it.
pub type Instruction = [u8; 8];

/// A register. R0 is what a call returns, R1 to R5 are its arguments and gone after it, R6 to R9 stay, R10 is the stack's end.
#[derive(Clone, Copy)]
struct R(u8);

/// How much is moved.
#[derive(Clone, Copy)]
enum Size {
    Byte,
    Half,
    Word,
    Double,
}

impl Size {
    const fn bits(self) -> u8 {
        match self {
            Self::Word => 0x00,
            Self::Half => 0x08,
            Self::Byte => 0x10,
            Self::Double => 0x18,
        }
    }
}

/// Where a jump leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    Pass,
    Count,
    Begin,
    Ends,
}

/// Functions of the kernel, by number.
#[derive(Clone, Copy)]
enum Call {
    Lookup = 1,
    Update = 2,
    Delete = 3,
    RedirectPeer = 155,
}

/// Instructions in the making.
#[derive(Default)]
struct Assembly {
    instructions: Vec<Instruction>,
    jumps: Vec<(usize, Label)>,
    labels: Vec<(Label, usize)>,
}

impl Assembly {
    fn put(&mut self, code: u8, to: R, from: R, offset: i16, number: i32) {
        let [low, high] = offset.to_ne_bytes();
        let [a, b, c, d] = number.to_ne_bytes();
        // Which half of the byte is which follows the machine's order, as in the kernel's `struct bpf_insn`.
        let registers = if cfg!(target_endian = "little") { from.0 << 4 | to.0 } else { to.0 << 4 | from.0 };
        self.instructions.push([code, registers, low, high, a, b, c, d]);
    }

    fn load(&mut self, size: Size, to: R, from: R, offset: i16) {
        self.put(0x61 | size.bits(), to, from, offset, 0);
    }

    fn store(&mut self, size: Size, to: R, offset: i16, from: R) {
        self.put(0x63 | size.bits(), to, from, offset, 0);
    }

    /// Adds to what is in memory, whoever else does so at the same time.
    fn add_atomically(&mut self, to: R, offset: i16, from: R) {
        self.put(0xdb, to, from, offset, 0);
    }

    fn copy(&mut self, to: R, from: R) {
        self.put(0xbf, to, from, 0, 0);
    }

    fn set(&mut self, to: R, number: i32) {
        self.put(0xb7, to, R(0), 0, number);
    }

    fn add(&mut self, to: R, number: i32) {
        self.put(0x07, to, R(0), 0, number);
    }

    fn jump(&mut self, code: u8, left: R, right: R, number: i32, label: Label) {
        self.jumps.push((self.instructions.len(), label));
        self.put(code, left, right, 0, number);
    }

    fn unless(&mut self, left: R, number: i32, label: Label) {
        self.jump(0x55, left, R(0), number, label);
    }

    fn if_any(&mut self, left: R, bits: i32, label: Label) {
        self.jump(0x45, left, R(0), bits, label);
    }

    fn map(&mut self, to: R, map: BorrowedFd<'_>) {
        const A_MAP: R = R(1);
        self.put(0x18, to, A_MAP, 0, map.as_raw_fd());
        self.put(0, R(0), R(0), 0, 0);
    }

    fn call(&mut self, call: Call) {
        self.put(0x85, R(0), R(0), 0, call as i32);
    }

    fn exit(&mut self) {
        self.put(0x95, R(0), R(0), 0, 0);
    }

    fn here(&mut self, label: Label) {
        self.labels.push((label, self.instructions.len()));
    }

    fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            let target = self.labels.iter().find(|(known, _)| *known == label).map(|(_, target)| *target).expect("every label is set");
            let distance = i16::try_from(target - at - 1).expect("it only jumps ahead, and not far");
            self.instructions[at][2..4].copy_from_slice(&distance.to_ne_bytes());
        }
        self.instructions
    }
}

// Where things are in the kernel's `struct __sk_buff`.
const LENGTH: i16 = 0;
const LINK: i16 = 40;
const DATA: i16 = 76;
const DATA_END: i16 = 80;

// Where things are in the packet, which begins with its Ethernet header and has no options of IPv4.
const KIND: i16 = 12;
const VERSION: i16 = 14;
const FRAGMENT: i16 = 20;
const PROTOCOL: i16 = 23;
const SOURCE: i16 = 26;
const DESTINATION: i16 = 30;
const PORTS: i16 = 34;
const SOURCE_PORT: i16 = 34;
const DESTINATION_PORT: i16 = 36;
const FLAGS: i16 = 47;
const HEADERS: i32 = 54;

const FIN_SYN_RST: i32 = 0x07;
const URGENT: i32 = 0x20;

/// Whatever else is to judge it may.
const NEXT: i32 = -1;

/// A key of either map: the link, both addresses, both ports.
pub const KEY: usize = 16;
/// Where a flow leads: the link, and the two hardware addresses in the order of a packet.
pub const WAY: usize = 16;
/// Bytes that were counted.
pub const COUNT: usize = 8;

/// The program. `flows` leads from keys to ways, `seen` from keys to counts.
pub fn program(flows: BorrowedFd<'_>, seen: BorrowedFd<'_>) -> Vec<Instruction> {
    const RESULT: R = R(0);
    const PACKET_INFO: R = R(6);
    const PACKET: R = R(7);
    const SEGMENT_FLAGS: R = R(8);
    const STACK: R = R(10);
    const OWN: i16 = -16;
    const TURNED: i16 = -32;
    const COUNTED: i16 = -40;
    let mut a = Assembly::default();
    let at = |a: &mut Assembly, to: R, offset: i16| {
        a.copy(to, STACK);
        a.add(to, offset.into());
    };
    a.copy(PACKET_INFO, R(1));
    a.load(Size::Word, PACKET, PACKET_INFO, DATA);
    a.load(Size::Word, R(2), PACKET_INFO, DATA_END);
    a.copy(R(1), PACKET);
    a.add(R(1), HEADERS);
    a.jump(0x2d, R(1), R(2), 0, Label::Pass);
    a.load(Size::Half, R(1), PACKET, KIND);
    a.unless(R(1), u16::from_ne_bytes([0x08, 0x00]).into(), Label::Pass);
    a.load(Size::Byte, R(1), PACKET, VERSION);
    a.unless(R(1), 0x45, Label::Pass);
    a.load(Size::Byte, R(1), PACKET, PROTOCOL);
    a.unless(R(1), libc::IPPROTO_TCP, Label::Pass);
    // Any but "do not fragment".
    a.load(Size::Half, R(1), PACKET, FRAGMENT);
    a.if_any(R(1), u16::from_ne_bytes([0x3f, 0xff]).into(), Label::Pass);
    // Only what comes by the sender's own link is its: nobody can slip into another task's connection.
    a.load(Size::Word, R(1), PACKET_INFO, LINK);
    a.store(Size::Word, STACK, OWN, R(1));
    for (offset, place) in [(SOURCE, 4), (DESTINATION, 8), (PORTS, 12)] {
        a.load(Size::Word, R(1), PACKET, offset);
        a.store(Size::Word, STACK, OWN + place, R(1));
    }
    a.load(Size::Byte, SEGMENT_FLAGS, PACKET, FLAGS);
    a.map(R(1), flows);
    at(&mut a, R(2), OWN);
    a.call(Call::Lookup);
    a.jump(0x15, RESULT, R(0), 0, Label::Count);
    a.if_any(SEGMENT_FLAGS, FIN_SYN_RST, Label::Ends);
    a.if_any(SEGMENT_FLAGS, URGENT, Label::Pass);
    for offset in [0, 4, 8] {
        a.load(Size::Word, R(1), RESULT, 4 + offset);
        a.store(Size::Word, PACKET, offset, R(1));
    }
    a.load(Size::Word, R(1), RESULT, 0);
    a.set(R(2), 0);
    a.call(Call::RedirectPeer);
    a.exit();

    a.here(Label::Ends);
    a.load(Size::Word, R(1), RESULT, 0);
    a.store(Size::Word, STACK, TURNED, R(1));
    for (offset, place, size) in
        [(DESTINATION, 4, Size::Word), (SOURCE, 8, Size::Word), (DESTINATION_PORT, 12, Size::Half), (SOURCE_PORT, 14, Size::Half)]
    {
        a.load(size, R(1), PACKET, offset);
        a.store(size, STACK, TURNED + place, R(1));
    }
    for key in [TURNED, OWN] {
        a.map(R(1), flows);
        at(&mut a, R(2), key);
        a.call(Call::Delete);
    }
    a.jump(0x05, R(0), R(0), 0, Label::Pass);

    a.here(Label::Count);
    a.if_any(SEGMENT_FLAGS, FIN_SYN_RST, Label::Pass);
    a.map(R(1), seen);
    at(&mut a, R(2), OWN);
    a.call(Call::Lookup);
    a.jump(0x15, RESULT, R(0), 0, Label::Begin);
    a.load(Size::Word, R(1), PACKET_INFO, LENGTH);
    a.add_atomically(RESULT, 0, R(1));
    a.jump(0x05, R(0), R(0), 0, Label::Pass);

    a.here(Label::Begin);
    a.load(Size::Word, R(1), PACKET_INFO, LENGTH);
    a.store(Size::Double, STACK, COUNTED, R(1));
    a.map(R(1), seen);
    at(&mut a, R(2), OWN);
    at(&mut a, R(3), COUNTED);
    a.set(R(4), 0);
    a.call(Call::Update);

    a.here(Label::Pass);
    a.set(RESULT, NEXT);
    a.exit();
    a.finish()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn instructions_are_as_the_kernel_reads_them() {
        let mut a = Assembly::default();
        a.jump(0x2d, R(1), R(2), 0, Label::Pass);
        a.load(Size::Half, R(1), R(7), 12);
        a.add(R(1), 0x37);
        a.here(Label::Pass);
        a.exit();
        let expected: [Instruction; 4] = [
            [0x2d, 0x21, 2, 0, 0, 0, 0, 0],
            [0x69, 0x71, 12, 0, 0, 0, 0, 0],
            [0x07, 0x01, 0, 0, 0x37, 0, 0, 0],
            [0x95, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(a.finish(), expected, "as clang writes them on a little-endian machine");
    }

    #[test]
    fn the_program_ends_and_never_jumps_back() {
        let file = File::open("/dev/null").expect("it is always there");
        let program = program(file.as_fd(), file.as_fd());
        assert_eq!(program.last(), Some(&[0x95, 0, 0, 0, 0, 0, 0, 0]));
        assert!(program.len() < 96, "{}", program.len());
        for (at, instruction) in program.iter().enumerate().filter(|(_, own)| [0x05, 0x15, 0x2d, 0x45, 0x55].contains(&own[0])) {
            let distance = i16::from_ne_bytes([instruction[2], instruction[3]]);
            assert!(distance >= 0 && at + 1 + usize::try_from(distance).expect("ahead") < program.len());
        }
    }
}

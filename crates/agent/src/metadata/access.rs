//! Who may ask about a container: its own task alone, by the address that the kernel says it has.

use std::net::Ipv4Addr;

use crate::plan::Wiring;

/// Whether somebody at `asker` is of the task that a container belongs to. `own` are the addresses of the task's containers; `machine` is
/// where the endpoint is answered, which is also from where programs in the machine's own network come. (Addresses cannot be forged
/// here: the network drops what a task sends from another's, and there is no answer to what never came from there.)
#[must_use]
pub fn may_ask(asker: Ipv4Addr, wiring: Wiring, own: &[Ipv4Addr], machine: Ipv4Addr) -> bool {
    match wiring {
        // Nothing comes from loopback that is not the machine's own.
        Wiring::Host => asker == machine || asker.is_loopback(),
        Wiring::Bridge | Wiring::Interface => own.contains(&asker),
        Wiring::Isolated => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_task_itself() {
        let at = |last| Ipv4Addr::new(172, 20, 0, last);
        for wiring in [Wiring::Bridge, Wiring::Interface] {
            assert!(may_ask(at(5), wiring, &[at(4), at(5)], at(1)));
            assert!(!may_ask(at(6), wiring, &[at(4), at(5)], at(1)), "another task");
            assert!(!may_ask(at(1), wiring, &[at(5)], at(1)), "a program of the machine's");
            assert!(!may_ask(at(5), wiring, &[], at(1)), "whose address is not known cannot be told from others");
        }
        assert!(may_ask(at(1), Wiring::Host, &[], at(1)));
        assert!(may_ask(Ipv4Addr::LOCALHOST, Wiring::Host, &[], Ipv4Addr::new(127, 20, 0, 1)));
        assert!(!may_ask(Ipv4Addr::LOCALHOST, Wiring::Bridge, &[at(5)], Ipv4Addr::new(127, 20, 0, 1)));
        assert!(!may_ask(at(5), Wiring::Host, &[], at(1)), "a task with an address of its own");
        assert!(!may_ask(at(1), Wiring::Isolated, &[], at(1)));
    }
}

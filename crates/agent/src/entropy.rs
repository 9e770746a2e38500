//! Randomness, for the edges that may draw it: request tokens and jitter.

use std::sync::Arc;

/// Where chance comes from: the kernel, or in a simulation whatever it gives.
#[derive(Clone, Default)]
pub enum Chance {
    /// The kernel.
    #[default]
    Machine,
    /// 128 bits at a time from here.
    Given(Arc<dyn Fn() -> u128 + Send + Sync>),
}

impl Chance {
    /// A random UUID (version 4), as text.
    #[must_use]
    pub fn uuid(&self) -> String {
        match self {
            Self::Machine => uuid(),
            Self::Given(bits) => render_uuid(bits().to_be_bytes()),
        }
    }

    /// A random number from 0 to 1.
    #[must_use]
    pub fn unit(&self) -> f64 {
        match self {
            Self::Machine => unit(),
            // The lower bits are as random as all.
            Self::Given(bits) => f64::from(bits() as u32) / f64::from(u32::MAX),
        }
    }
}

impl std::fmt::Debug for Chance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::Machine) { "Machine" } else { "Given" })
    }
}

/// A random UUID (version 4), as text.
#[must_use]
pub fn uuid() -> String {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    render_uuid(bytes)
}

fn render_uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let number = u128::from_be_bytes(bytes);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        number >> 96,
        number >> 80 & 0xffff,
        number >> 64 & 0xffff,
        number >> 48 & 0xffff,
        number & 0xffff_ffff_ffff
    )
}

/// A random number from 0 to 1.
#[must_use]
pub fn unit() -> f64 {
    let mut bytes = [0_u8; 4];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_a_uuids_form() {
        let (one, other) = (uuid(), uuid());
        assert_ne!(one, other);
        assert_eq!(one.len(), 36);
        assert_eq!(one.as_bytes()[14], b'4');
        assert!((0.0..=1.0).contains(&unit()));
    }
}

//! String enums as AWS has them: a known set that may grow. A value outside the set is kept, never an error while
//! decoding; whether it is refused is for [`crate::validate`].

use std::fmt;

/// What every generated enum offers, so that validation can be written once.
pub trait OpenEnum: fmt::Debug + Sized {
    /// All values of the model, in the model's order.
    const VALUES: &'static [&'static str];

    /// The value on the wire.
    fn as_str(&self) -> &str;

    /// Whether the model lists the value.
    fn is_known(&self) -> bool;
}

/// Defines an open enum: one variant per value of the model and `Unknown` for any other string. It reads and writes
/// as its string.
#[macro_export]
macro_rules! open_enum {
    ($(#[$doc:meta])* pub enum $name:ident { $($variant:ident = $wire:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(clippy::enum_variant_names, reason = "the model names the values")]
        pub enum $name {
            $(#[doc = concat!("`", $wire, "`")] $variant,)*
            /// A value that the model does not list, kept as it came.
            Unknown(Box<str>),
        }

        impl $name {
            /// All values of the model, in the model's order.
            pub const VALUES: &'static [&'static str] = &[$($wire),*];

            /// The value on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $wire,)*
                    Self::Unknown(value) => value,
                }
            }
        }

        impl $crate::OpenEnum for $name {
            const VALUES: &'static [&'static str] = Self::VALUES;

            fn as_str(&self) -> &str {
                self.as_str()
            }

            fn is_known(&self) -> bool {
                !matches!(self, Self::Unknown(_))
            }
        }

        impl From<&str> for $name {
            fn from(value: &str) -> Self {
                match value {
                    $($wire => Self::$variant,)*
                    _ => Self::Unknown(value.into()),
                }
            }
        }

        impl From<String> for $name {
            fn from(value: String) -> Self {
                Self::from(value.as_str())
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str($crate::open_enum::Text(std::marker::PhantomData))
            }
        }
    };
}

/// Reads any type that can be made from a string; shared by all enums so that each adds little code.
#[doc(hidden)]
pub struct Text<T>(pub std::marker::PhantomData<T>);

impl<T: for<'a> From<&'a str>> serde::de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok(T::from(text))
    }
}

#[cfg(test)]
mod tests {
    open_enum! {
        /// A fruit.
        pub enum Fruit {
            Apple = "APPLE",
            DragonFruit = "dragon-fruit",
        }
    }

    #[test]
    fn known_and_unknown_values_survive_the_wire() {
        for text in ["APPLE", "dragon-fruit", "durian", ""] {
            let json = format!("\"{text}\"");
            let fruit: Fruit = serde_json::from_str(&json).unwrap();
            assert_eq!(fruit.as_str(), text);
            assert_eq!(serde_json::to_string(&fruit).unwrap(), json);
        }
        assert_eq!(Fruit::from("dragon-fruit"), Fruit::DragonFruit);
        assert_eq!(Fruit::from("durian"), Fruit::Unknown("durian".into()));
        assert_eq!(Fruit::VALUES, ["APPLE", "dragon-fruit"]);
        assert!(serde_json::from_str::<Fruit>("1").is_err());
    }
}

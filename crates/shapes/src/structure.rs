//! The `structure!` macro that generated modules use for request, response and nested structures. Written out rather
//! than derived: serde's derive would also accept a JSON array by position and refuse a repeated member, and AWS does
//! neither; it would also take several times longer to compile.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::de;

/// Defines a structure: every member is optional (null and absent are one), unknown members are ignored, absent ones
/// are not written. Of a repeated member the last one counts.
#[macro_export]
macro_rules! structure {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* pub $field:ident: $type:ty = $wire:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: Option<$type>,)*
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                // CBOR writes the count first, so it must be exact.
                let present = 0 $(+ usize::from(self.$field.is_some()))*;
                #[allow(unused_mut, reason = "a structure may have no members")]
                let mut map = serde::Serializer::serialize_map(serializer, Some(present))?;
                $(if let Some(value) = &self.$field {
                    serde::ser::SerializeMap::serialize_entry(&mut map, $wire, value)?;
                })*
                serde::ser::SerializeMap::end(map)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_map($crate::structure::Members(std::marker::PhantomData))
            }
        }

        impl<'de> $crate::structure::Structure<'de> for $name {
            fn read<A: serde::de::MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
                match name {
                    $($wire => self.$field = map.next_value()?,)*
                    _ => {
                        map.next_value::<serde::de::IgnoredAny>()?;
                    }
                }
                Ok(())
            }
        }
    };
}

/// A structure that can take its members one at a time; implemented by [`structure!`](crate::structure!) only.
#[doc(hidden)]
pub trait Structure<'de>: Default {
    /// Reads the value of the member `name`, or skips it.
    fn read<A: de::MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;
}

/// The visitor behind every structure.
#[doc(hidden)]
pub struct Members<T>(pub PhantomData<T>);

impl<'de, T: Structure<'de>> de::Visitor<'de> for Members<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a structure")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut structure = T::default();
        while let Some(MemberName(name)) = map.next_key()? {
            structure.read(&name, &mut map)?;
        }
        Ok(structure)
    }
}

/// A member's name, borrowed from the input where it can be.
struct MemberName<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for MemberName<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = MemberName<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(MemberName(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(MemberName(Cow::Owned(name.to_owned())))
            }

            fn visit_string<E>(self, name: String) -> Result<Self::Value, E> {
                Ok(MemberName(Cow::Owned(name)))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

//! The parts of a value as serde walks through them: elements, entries, keys, variants.

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

use super::super::{ConfigError, Origin, Table, Value};
use super::{read_boolean, read_float, read_signed, read_unsigned};

/// The elements of an array, one after the other.
pub(super) struct Elements<'a> {
    elements: &'a [Value],
    next: usize,
}

impl<'a> Elements<'a> {
    pub(super) fn new(elements: &'a [Value]) -> Self {
        Self { elements, next: 0 }
    }
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = ConfigError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ConfigError> {
        let Some(element) = self.elements.get(self.next) else { return Ok(None) };
        let index = self.next;
        self.next += 1;
        let read = seed.deserialize(element);
        read.map(Some).map_err(|error| error.located(&element.origin).under_index(index))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.elements.len().saturating_sub(self.next))
    }
}

/// The entries of a table, one after the other.
pub(super) struct Entries<'a> {
    table: &'a Table,
    next: usize,
}

impl<'a> Entries<'a> {
    pub(super) fn new(table: &'a Table) -> Self {
        Self { table, next: 0 }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = ConfigError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ConfigError> {
        let Some((key, origin, _)) = self.table.entry(self.next) else { return Ok(None) };
        self.next += 1;
        seed.deserialize(Key(key)).map(Some).map_err(|error| error.located(origin))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ConfigError> {
        let entry = self.next.checked_sub(1).and_then(|current| self.table.entry(current));
        let Some((key, _, value)) = entry else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(value).map_err(|error| error.located(&value.origin).under(key))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.table.len().saturating_sub(self.next))
    }
}

/// A key of a table: text, or a number or boolean where the map has such keys (`errors = { 404 = "..." }`).
struct Key<'a>(&'a str);

macro_rules! key_scalars {
    ($($method:ident => $read:ident, $visit:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
            match $read(self.0) {
                Some(scalar) => visitor.$visit(scalar),
                None => visitor.visit_str(self.0),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Key<'_> {
    type Error = ConfigError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_str(self.0)
    }

    key_scalars! {
        deserialize_bool => read_boolean, visit_bool;
        deserialize_i8 => read_signed, visit_i64;
        deserialize_i16 => read_signed, visit_i64;
        deserialize_i32 => read_signed, visit_i64;
        deserialize_i64 => read_signed, visit_i64;
        deserialize_i128 => read_signed, visit_i64;
        deserialize_u8 => read_unsigned, visit_u64;
        deserialize_u16 => read_unsigned, visit_u64;
        deserialize_u32 => read_unsigned, visit_u64;
        deserialize_u64 => read_unsigned, visit_u64;
        deserialize_u128 => read_unsigned, visit_u64;
        deserialize_f32 => read_float, visit_f64;
        deserialize_f64 => read_float, visit_f64;
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        let word: StrDeserializer<'_, ConfigError> = self.0.into_deserializer();
        word.deserialize_enum(name, variants, visitor)
    }

    serde::forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// An enum's variant: a word alone, or the one key of a table with its value.
pub(super) struct Variant<'a> {
    pub(super) name: &'a str,
    /// Where the word or the key was written.
    pub(super) origin: &'a Origin,
    pub(super) content: Option<&'a Value>,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = ConfigError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), ConfigError> {
        let variant = seed.deserialize(Key(self.name)).map_err(|error| error.located(self.origin))?;
        Ok((variant, self))
    }
}

impl Variant<'_> {
    fn read<T>(
        self,
        expected: &str,
        read: impl FnOnce(&Value) -> Result<T, ConfigError>,
    ) -> Result<T, ConfigError> {
        if let Some(content) = self.content {
            read(content).map_err(|error| error.located(&content.origin).under(self.name))
        } else {
            let message = format!("'{0}' needs a value: write {{ {0} = {expected} }}", self.name);
            Err(ConfigError::new(self.origin.clone(), message))
        }
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = ConfigError;

    fn unit_variant(self) -> Result<(), ConfigError> {
        match self.content {
            None => Ok(()),
            Some(content) if content.as_table().is_some_and(Table::is_empty) => Ok(()),
            Some(content) => {
                let expected = format!("nothing: write \"{}\" alone", self.name);
                Err(content.mismatch(expected).under(self.name))
            }
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ConfigError> {
        self.read("...", |content| seed.deserialize(content))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, ConfigError> {
        self.read("[...]", |content| content.deserialize_seq(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        self.read("{ ... }", |content| content.deserialize_struct("", fields, visitor))
    }
}

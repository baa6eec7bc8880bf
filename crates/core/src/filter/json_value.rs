//! JSON as values of expressions, measured on the way.
//!
//! A number without fraction and exponent is an integer; of a repeated member the last one counts.

use std::collections::HashMap;
use std::fmt;

use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt,
};
use cel::common::value::Val;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::estimate::{Size, VALUE_BYTES};

/// A value that is part of no other.
pub(super) type AnyValue = Box<dyn Val>;

/// Reads a JSON text; `None` if it is not one. The parser bounds its nesting.
pub(super) fn read(json: &[u8]) -> Option<(AnyValue, Size)> {
    let mut measure = Measure::default();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = Seed(&mut measure).deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    let bytes = json.len() as u64 + measure.values * VALUE_BYTES;
    Some((value, Size { bytes, longest: measure.longest as u64 }))
}

/// Returns a text as a value.
pub(super) fn text(text: &str) -> AnyValue {
    Box::new(CelString::from(text.to_owned()))
}

/// Returns a text as a value; null if there is none.
pub(super) fn optional_text(value: Option<&str>) -> AnyValue {
    value.map_or(Box::new(CelNull), text)
}

/// Returns members as a value.
pub(super) fn object(members: impl Iterator<Item = (String, AnyValue)>) -> AnyValue {
    let members: HashMap<CelMapKey<'static>, AnyValue> =
        members.map(|(name, value)| (CelMapKey::from(name), value)).collect();
    Box::new(CelMap::from(members))
}

/// What has been read so far.
#[derive(Default)]
struct Measure {
    values: u64,
    longest: usize,
}

struct Seed<'a>(&'a mut Measure);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = AnyValue;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<AnyValue, D::Error> {
        self.0.values += 1;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = AnyValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<AnyValue, E> {
        Ok(Box::new(CelNull))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<AnyValue, E> {
        Ok(Box::new(CelBool::from(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<AnyValue, E> {
        Ok(Box::new(CelInt::from(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<AnyValue, E> {
        Ok(match i64::try_from(value) {
            Ok(value) => Box::new(CelInt::from(value)),
            Err(_) => Box::new(CelUInt::from(value)),
        })
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<AnyValue, E> {
        Ok(Box::new(CelDouble::from(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<AnyValue, E> {
        Ok(text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<AnyValue, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element_seed(Seed(&mut *self.0))? {
            elements.push(element);
        }
        self.0.longest = elements.len().max(self.0.longest);
        Ok(Box::new(CelList::from(elements)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AnyValue, A::Error> {
        let mut members: HashMap<CelMapKey<'static>, AnyValue> = HashMap::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(Seed(&mut *self.0))?;
            members.insert(CelMapKey::from(name), value);
        }
        self.0.longest = members.len().max(self.0.longest);
        Ok(Box::new(CelMap::from(members)))
    }
}

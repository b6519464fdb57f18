//! Which keys a config struct has.

use std::collections::BTreeSet;

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value as Json;

/// The keys that the config struct `T` takes, in alphabetical order.
///
/// For an enum of structs these are the keys of all its variants. They are found through `T`'s JSON schema, so
/// that whoever dispatches the keys of a table needs no list beside the struct.
///
/// ```
/// #[derive(schemars::JsonSchema)]
/// struct Files {
///     root: String,
///     index: Option<Vec<String>>,
/// }
///
/// assert_eq!(hawksbill_core::config::fields_of::<Files>(), ["index", "root"]);
/// ```
pub fn fields_of<T: JsonSchema>() -> Vec<String> {
    let schema = SchemaGenerator::default().into_root_schema_for::<T>().to_value();
    let mut fields = BTreeSet::new();
    collect(&schema, &schema, DEEPEST, &mut fields);
    fields.into_iter().collect()
}

/// References may be circular; no config struct nests alternatives this deep.
const DEEPEST: usize = 8;

fn collect(schema: &Json, root: &Json, depth: usize, fields: &mut BTreeSet<String>) {
    let Some(depth) = depth.checked_sub(1) else { return };
    if let Some(properties) = schema.get("properties").and_then(Json::as_object) {
        fields.extend(properties.keys().cloned());
    }
    let reference =
        schema.get("$ref").and_then(Json::as_str).and_then(|reference| reference.strip_prefix('#'));
    if let Some(target) = reference.and_then(|pointer| root.pointer(pointer)) {
        collect(target, root, depth, fields);
    }
    for combination in ["allOf", "anyOf", "oneOf"] {
        for part in schema.get(combination).and_then(Json::as_array).into_iter().flatten() {
            collect(part, root, depth, fields);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(JsonSchema)]
    #[allow(dead_code)]
    struct Common {
        timeout: Option<u64>,
    }

    #[derive(JsonSchema)]
    #[allow(dead_code)]
    struct Flattened {
        #[serde(flatten)]
        common: Common,
        #[serde(rename = "proxy")]
        upstream: String,
        inner: Common,
    }

    #[derive(JsonSchema)]
    #[serde(untagged)]
    #[allow(dead_code)]
    enum Either {
        Word(String),
        Full(Flattened),
        Common(Common),
    }

    #[derive(JsonSchema)]
    #[allow(dead_code)]
    struct Recursive {
        next: Option<Box<Recursive>>,
    }

    #[test]
    fn fields_are_found_through_flattening_references_and_alternatives() {
        assert_eq!(fields_of::<Flattened>(), ["inner", "proxy", "timeout"]);
        assert_eq!(fields_of::<Either>(), ["inner", "proxy", "timeout"]);
        assert_eq!(fields_of::<Recursive>(), ["next"]);
        assert!(fields_of::<String>().is_empty());
    }
}

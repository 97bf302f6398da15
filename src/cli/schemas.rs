//! The JSON Schemas in `docs/schema/`, made from the types in `report` and held against the files, and against
//! `docs/JSON.md`, which has every name that a field may have. `WALVIS_TEST_BLESS=1 cargo test --lib schemas` writes
//! the files.

use super::exit::{kind_word, tests::KINDS};
use crate::report;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The schema of what a command prints.
fn of<T: JsonSchema>(title: &str) -> Value {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema: Value = Schema::into(generator.into_root_schema_for::<T>());
    close(&mut schema);
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("title".to_owned(), title.into());
    }
    schema
}

/// An object has no other fields than those that are named, and numbers no formats that only Rust knows.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("properties") && !fields.contains_key("additionalProperties") {
                fields.insert("additionalProperties".to_owned(), false.into());
            }
            if fields.get("format").is_some_and(|format| format != "date-time") {
                fields.remove("format");
            }
            // Where the lines of a comment end says nothing.
            if let Some(Value::String(text)) = fields.get_mut("description") {
                *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// By the name of the file.
fn schemas() -> BTreeMap<&'static str, Value> {
    let mut error = of::<report::failure::FailureReport<'_>>("What a command that fails prints to standard error with --json");
    let kind = error.pointer_mut("/$defs/Failure/properties/kind").and_then(Value::as_object_mut).unwrap();
    kind.insert("enum".to_owned(), KINDS.map(kind_word).to_vec().into());
    BTreeMap::from([
        ("base-backup", of::<report::backup::BackupReport>("walvis base-backup --json")),
        ("catalog", of::<report::catalog::CatalogReport>("walvis catalog --json")),
        (
            "catalog-line",
            of::<report::catalog::CatalogLine>("One line of walvis catalog --commits --json or --restore-points --json"),
        ),
        ("catalog-rebuild", of::<Vec<report::catalog_rebuild::RebuildReport>>("walvis catalog rebuild --json")),
        ("check", of::<report::check::CheckReport>("walvis check --json")),
        ("check-policies", of::<Vec<report::policies::PoliciesReport>>("walvis check --policies --json")),
        ("end-recovery", of::<report::end_recovery::EndReport>("walvis end-recovery --json")),
        ("error", error),
        ("expire", of::<Vec<report::expire::ExpireReport>>("walvis expire --json")),
        ("fetch-wal", of::<report::fetch::FetchReport>("walvis fetch-wal --json")),
        ("init", of::<Vec<report::init::InitReport>>("walvis init --json")),
        ("key-generate", of::<report::key::KeyReport>("walvis key generate --json")),
        ("list", of::<Vec<report::list::ListReport>>("walvis list --json")),
        ("list-file", of::<report::list::StoredFile>("One line of walvis list --files --json")),
        ("pin", of::<Vec<report::pin::PinReport>>("walvis pin --json")),
        ("pitr-restore", of::<report::restore::RestoreReport>("walvis pitr-restore --json")),
        ("push-wal", of::<Vec<report::push::PushReport>>("walvis push-wal --json")),
        ("push-wal-missed", of::<Vec<report::push::MissedReport>>("walvis push-wal --missed --json")),
        ("verify", of::<Vec<report::verify::VerifyReport>>("walvis verify --json")),
        ("resolve", of::<report::resolve::ResolveReport>("walvis resolve --json")),
        ("unpin", of::<Vec<report::pin::UnpinReport>>("walvis unpin --json")),
    ])
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the files of the repository that this one is built from")]
fn the_files_are_what_the_types_say() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema");
    let expected: BTreeMap<String, String> = schemas()
        .into_iter()
        .map(|(name, schema)| (format!("{name}.json"), format!("{}\n", serde_json::to_string_pretty(&schema).unwrap())))
        .collect();
    if std::env::var_os("WALVIS_TEST_BLESS").is_some() {
        for (name, text) in &expected {
            std::fs::write(directory.join(name), text).unwrap();
        }
    }
    let there = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(there.collect::<BTreeSet<_>>(), expected.keys().cloned().collect());
    for (name, text) in expected {
        let written = std::fs::read_to_string(directory.join(&name)).unwrap();
        assert!(written == text, "docs/schema/{name} is another one: WALVIS_TEST_BLESS=1 cargo test --lib schemas");
    }
}

/// The names and types of all fields in a schema.
fn fields(root: &Value, schema: &Value, found: &mut BTreeMap<String, BTreeSet<&'static str>>) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Object(properties)) = object.get("properties") {
                for (name, property) in properties {
                    found.entry(name.clone()).or_default().extend(types(root, property));
                }
            }
            object.values().for_each(|value| fields(root, value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| fields(root, value, found)),
        _ => {}
    }
}

/// The words that docs/JSON.md has for the types of a field. That it may be null is not among them.
fn types(root: &Value, schema: &Value) -> BTreeSet<&'static str> {
    let resolved = |object: &Map<String, Value>| {
        object.get("$ref").map(|place| types(root, root.pointer(place.as_str().unwrap().trim_start_matches('#')).unwrap()))
    };
    let Value::Object(object) = schema else { panic!("a field may be anything: {schema}") };
    if let Some(found) = resolved(object) {
        return found;
    }
    for alternatives in ["anyOf", "oneOf"] {
        if let Some(Value::Array(alternatives)) = object.get(alternatives) {
            return alternatives.iter().flat_map(|alternative| types(root, alternative)).collect();
        }
    }
    if object.contains_key("enum") || object.contains_key("const") {
        return BTreeSet::from(["word"]);
    }
    let names = match object.get("type") {
        Some(Value::Array(names)) => names.clone(),
        Some(name) => vec![name.clone()],
        None => panic!("no type: {schema}"),
    };
    let word = |name: &Value| match name.as_str().unwrap() {
        "null" => None,
        "string" if object.get("format").is_some_and(|format| format == "date-time") => Some("time"),
        "string" => Some("text"),
        "integer" => Some("integer"),
        "number" => Some("number"),
        "boolean" => Some("boolean"),
        "array" => Some("list"),
        "object" => Some("object"),
        other => panic!("{other}"),
    };
    names.iter().filter_map(word).collect()
}

/// Each field has one name over all commands, one type, and an entry; and nothing else has one.
#[test]
fn every_field_is_in_the_vocabulary() {
    let mut found = BTreeMap::new();
    for schema in schemas().values() {
        fields(schema, schema, &mut found);
    }
    let document = include_str!("../../docs/JSON.md");
    let table = document.split("## Fields").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut known: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for line in table.lines() {
        let Some(row) = line.strip_prefix("| `") else { continue };
        let cells: Vec<&str> = row.split(" | ").collect();
        let name = cells[0].trim_end_matches('`').to_owned();
        let types = match cells[1] {
            // What is not UTF-8 is an object.
            "name" => BTreeSet::from(["text", "object"]),
            types => types.split(" or ").collect(),
        };
        assert!(cells.len() > 2 && cells[2].len() > 3, "what is {name}?");
        assert!(known.insert(name, types).is_none(), "{} stands there twice", cells[0]);
    }
    let missing: Vec<_> = found.iter().filter(|(name, types)| known.get(*name) != Some(types)).collect();
    assert!(missing.is_empty(), "not in docs/JSON.md with these types: {missing:#?}");
    let unused: Vec<_> = known.keys().filter(|name| !found.contains_key(*name)).collect();
    assert!(unused.is_empty(), "no command has: {unused:?}");
}

/// What a name ends with says its unit.
#[test]
fn names_end_with_their_units() {
    let mut found = BTreeMap::new();
    for schema in schemas().values() {
        fields(schema, schema, &mut found);
    }
    for (name, types) in &found {
        let is = |wanted: &str| types.contains(wanted);
        assert!(!(name.ends_with("_ms") || name.ends_with("_us") || name.ends_with("_sec")), "{name}: seconds");
        assert_eq!(is("time"), name == "time" || name.ends_with("_at"), "{name}: times");
        assert!(!name.ends_with("_s") || is("number") || is("integer"), "{name}: seconds");
        assert!(!(name == "bytes" || name.ends_with("_bytes")) || is("integer"), "{name}: bytes");
        assert!(!(name == "lsn" || name.ends_with("_lsn")) || is("text"), "{name}: positions");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
    }
}

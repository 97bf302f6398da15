//! Holds what the program prints as JSON against the schemas in `docs/schema/`.
//!
//! Knows the part of JSON Schema (new_file 2020-12) that these schemas use, and refuses any other keyword: what it does
//! not know, it would not check.

use std::path::Path;

use serde_json::{Map, Value};

/// The schema of this name.
#[track_caller]
fn read(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema").join(name).with_extension("json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// Panics unless a value is as the schema of this name says.
#[track_caller]
pub fn holds(name: &str, value: &Value) {
    let root = read(name);
    if let Err(why) = check(&root, &root, value, "") {
        panic!("docs/schema/{name}.json: {why}: {value:#}");
    }
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let schema = match schema {
        Value::Object(schema) => schema,
        Value::Bool(true) => return Ok(()),
        _ => return Err(format!("{at}: nothing is allowed there")),
    };
    for (keyword, rule) in schema {
        rule_holds(root, schema, (keyword, rule), value, at)?;
    }
    Ok(())
}

fn rule_holds(
    root: &Value,
    schema: &Map<String, Value>,
    (keyword, rule): (&str, &Value),
    value: &Value,
    at: &str,
) -> Result<(), String> {
    let unless = |holds: bool| if holds { Ok(()) } else { Err(format!("{at}: {value} breaks {keyword} {rule}")) };
    match keyword {
        "$schema" | "$defs" | "title" | "description" => Ok(()),
        "$ref" => {
            let place = rule.as_str().unwrap().strip_prefix('#').unwrap();
            check(root, root.pointer(place).unwrap_or_else(|| panic!("{place} leads nowhere")), value, at)
        }
        "type" => match rule {
            Value::Array(types) => unless(types.iter().any(|name| is(value, name))),
            name => unless(is(value, name)),
        },
        "enum" => unless(rule.as_array().unwrap().contains(value)),
        "const" => unless(rule == value),
        "format" => {
            assert_eq!(rule, "date-time", "a format that is not known here");
            unless(value.as_str().is_none_or(is_time))
        }
        "minimum" => unless(value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap())),
        "maximum" => unless(value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap())),
        "items" => {
            let items = value.as_array().into_iter().flatten().enumerate();
            items.into_iter().try_for_each(|(i, item)| check(root, rule, item, &format!("{at}/{i}")))
        }
        "properties" => {
            let Value::Object(fields) = value else { return Ok(()) };
            rule.as_object().unwrap().iter().try_for_each(|(name, rule)| match fields.get(name) {
                Some(field) => check(root, rule, field, &format!("{at}/{name}")),
                None => Ok(()),
            })
        }
        "required" => {
            let Value::Object(fields) = value else { return Ok(()) };
            unless(rule.as_array().unwrap().iter().all(|name| fields.contains_key(name.as_str().unwrap())))
        }
        "additionalProperties" => {
            let (Value::Object(fields), known) = (value, schema.get("properties").and_then(Value::as_object)) else {
                return Ok(());
            };
            let mut others = fields.iter().filter(|(name, _)| known.is_none_or(|known| !known.contains_key(*name)));
            others.try_for_each(|(name, field)| check(root, rule, field, &format!("{at}/{name}")))
        }
        "anyOf" => {
            let tried: Vec<_> = rule.as_array().unwrap().iter().map(|rule| check(root, rule, value, at)).collect();
            if tried.iter().any(Result::is_ok) { Ok(()) } else { Err(format!("{at}: none of these: {tried:?}")) }
        }
        "oneOf" => {
            let fitting = rule.as_array().unwrap().iter().filter(|rule| check(root, rule, value, at).is_ok()).count();
            unless(fitting == 1)
        }
        other => panic!("{at}: the keyword {other} is not known here"),
    }
}

fn is(value: &Value, name: &Value) -> bool {
    match name.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the type {other} is not known here"),
    }
}

/// `2026-11-21T03:36:21.123456Z`: the one form that Walvis prints.
fn is_time(text: &str) -> bool {
    let shape = "9999-99-99T99:99:99.999999Z";
    let fits = |(shape, c): (char, char)| if shape == '9' { c.is_ascii_digit() } else { shape == c };
    text.len() == shape.len() && shape.chars().zip(text.chars()).all(fits) && text.parse::<jiff::Timestamp>().is_ok()
}

#[test]
fn what_breaks_a_schema_is_found() {
    let root = serde_json::json!({
        "type": "object",
        "properties": {
            "a": {"type": ["integer", "null"]}, "b": {"$ref": "#/$defs/B"}, "c": {"type": "string", "format": "date-time"},
            "d": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["a"],
        "additionalProperties": false,
        "$defs": {"B": {"oneOf": [{"type": "string", "const": "x"}, {"enum": ["y"]}]}},
    });
    let fits = |text: &str| check(&root, &root, &serde_json::from_str(text).unwrap(), "").is_ok();
    for text in
        [r#"{"a": null}"#, r#"{"a": 1, "b": "x", "c": "2026-11-21T03:36:21.123456Z", "d": ["z"]}"#, r#"{"a": 1, "b": "y"}"#]
    {
        assert!(fits(text), "{text}");
    }
    for text in [
        "[]",
        "{}",
        r#"{"a": "1"}"#,
        r#"{"a": 1.5}"#,
        r#"{"a": 1, "b": "z"}"#,
        r#"{"a": 1, "c": "2026-11-21 03:36:21.123456+00:00"}"#,
        r#"{"a": 1, "d": [1]}"#,
        r#"{"a": 1, "e": 1}"#,
    ] {
        assert!(!fits(text), "{text}");
    }
}

//! The lines of a CSV file.

use serde_json::Value;

/// Characters with which a spreadsheet takes a text for a formula.
const FORMULA_STARTS: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

pub(super) fn header(columns: &[String]) -> String {
    end_line(columns.iter().map(|column| quoted(column)))
}

/// The values of an item. A column names its path: `definition.title`.
pub(super) fn line(columns: &[String], item: &Value) -> String {
    end_line(columns.iter().map(|column| {
        let value = column.split('.').try_fold(item, |value, name| value.get(name));
        match value {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => quoted(&harmless(text)),
            Some(other @ (Value::Bool(_) | Value::Number(_))) => other.to_string(),
            Some(other) => quoted(&other.to_string()),
        }
    }))
}

fn end_line(fields: impl Iterator<Item = String>) -> String {
    let mut line = fields.collect::<Vec<_>>().join(",");
    line.push_str("\r\n");
    line
}

/// A text that begins like a formula gets an apostrophe, which spreadsheets do not show.
fn harmless(text: &str) -> String {
    if text.starts_with(FORMULA_STARTS) { format!("'{text}") } else { text.to_owned() }
}

fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_quoted_and_formulas_are_not_executed() {
        let columns = ["id", "definition.title", "count", "seats", "active", "missing"];
        let columns = columns.map(str::to_owned);
        assert_eq!(header(&columns), "id,definition.title,count,seats,active,missing\r\n");
        for (title, expected) in [
            ("Night", "Night"),
            ("a,b", "\"a,b\""),
            ("a \"b\"", "\"a \"\"b\"\"\""),
            ("a\nb", "\"a\nb\""),
            ("=1+1", "'=1+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("-2", "'-2"),
            ("+3", "'+3"),
            ("=HYPERLINK(\"x\",\"y\")", "\"'=HYPERLINK(\"\"x\"\",\"\"y\"\")\""),
        ] {
            let item = json!({"id": "x", "definition": {"title": title}, "count": -5,
                "seats": [1, 2], "active": null});
            assert_eq!(line(&columns, &item), format!("x,{expected},-5,\"[1,2]\",,\r\n"));
        }
    }
}

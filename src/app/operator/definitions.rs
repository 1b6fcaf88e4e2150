//! `usher export` and `usher apply`: definitions as a file, for a sale that is kept in Git.

use std::io::Read;

use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use serde_json::{Map, Value};

use super::client::AdminClient;
use super::definition_file::{COLLECTIONS, DefinitionFile, NamedDefinition, difference};
use super::{OperatorError, text};

/// The largest file, in bytes: eight bodies of the admin API.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// All definitions of the service as YAML.
pub(super) async fn export(client: &AdminClient) -> Result<String, OperatorError> {
    let mut lists = Map::new();
    for collection in COLLECTIONS {
        let mut definitions = Map::new();
        for item in all_items(client, collection).await? {
            // An archived concert is not changed any more.
            if item["archived"] != Value::Bool(true) {
                definitions.insert(text(&item, "id").to_owned(), item["definition"].clone());
            }
        }
        lists.insert(collection.to_owned(), Value::Object(definitions));
    }
    let file = DefinitionFile::from_lists(Value::Object(lists)).map_err(OperatorError::File)?;
    file.to_yaml().map_err(OperatorError::File)
}

async fn all_items(client: &AdminClient, collection: &str) -> Result<Vec<Value>, OperatorError> {
    let mut items = Vec::new();
    let mut path = format!("/admin/{collection}?limit=500");
    loop {
        let mut page = client.get(&path).await?;
        if let Some(Value::Array(some)) = page.get_mut("items").map(Value::take) {
            items.extend(some);
        }
        let Some(next) = page["next"].as_str() else { return Ok(items) };
        path = format!("/admin/{collection}?limit=500&before={next}");
    }
}

/// Reads a file, or standard input for `-`.
pub(super) fn read(path: &str) -> Result<DefinitionFile, OperatorError> {
    let failed = |error: std::io::Error| OperatorError::File(format!("{path}: {error}"));
    let mut yaml = String::new();
    if path == "-" {
        std::io::stdin().take(MAX_FILE_BYTES).read_to_string(&mut yaml).map_err(failed)?;
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_FILE_BYTES).read_to_string(&mut yaml).map_err(failed)?;
    }
    DefinitionFile::parse(&yaml).map_err(|cause| OperatorError::File(format!("{path}: {cause}")))
}

/// Creates and replaces definitions so that the service has those of the file. What the file does
/// not name stays. Prints each difference before it is applied; with `only_show` nothing is.
pub(super) async fn apply(
    client: &AdminClient,
    file: DefinitionFile,
    only_show: bool,
    mut print: impl FnMut(&str) -> std::io::Result<()>,
) -> Result<(), OperatorError> {
    let definitions = file.definitions().map_err(OperatorError::File)?;
    let mut differing = 0;
    for NamedDefinition { collection, id, definition } in definitions {
        let path = format!("/admin/{collection}/{id}");
        let stored = client.find(&path).await?;
        let precondition = match &stored {
            None => {
                print(&format!("{collection}/{id}: create"))?;
                (IF_NONE_MATCH, "*".to_owned())
            }
            Some((before, etag)) => {
                let lines = difference(&before["definition"], &definition);
                if lines.is_empty() {
                    continue;
                }
                print(&format!("{collection}/{id}: change"))?;
                for line in lines {
                    print(&format!("  {line}"))?;
                }
                (IF_MATCH, etag.clone())
            }
        };
        differing += 1;
        if !only_show {
            client.put(&path, definition, precondition).await.map_err(|error| {
                OperatorError::Definition {
                    name: format!("{collection}/{id}"),
                    cause: Box::new(error),
                }
            })?;
        }
    }
    print(&match (differing, only_show) {
        (0, _) => "nothing to change".to_owned(),
        (count, true) => format!("{count} to change; nothing was applied"),
        (count, false) => format!("{count} applied"),
    })?;
    Ok(())
}

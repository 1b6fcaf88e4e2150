//! Replaces generated sections of a Markdown document.
//!
//! A section is the text between the lines `<!-- name:begin -->` and `<!-- name:end -->`.

use std::path::Path;

use crate::BoxError;

/// Replaces one section of the file. Fails, without a change, if the document has no such section.
pub(crate) fn write_section(path: &Path, name: &str, text: &str) -> Result<(), BoxError> {
    let document =
        std::fs::read_to_string(path).map_err(|cause| format!("{}: {cause}", path.display()))?;
    let replaced = replace_section(&document, name, text)
        .ok_or_else(|| format!("{} has no section `{name}`", path.display()))?;
    Ok(std::fs::write(path, replaced)?)
}

fn replace_section(document: &str, name: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {name}:begin -->\n"), format!("<!-- {name}:end -->"));
    let (before, rest) = document.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_section_is_replaced() {
        let document =
            "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n<!-- y:begin -->\n<!-- y:end -->\n";
        let replaced = replace_section(document, "x", "\nnew\n").unwrap();
        assert_eq!(
            replaced,
            "a\n<!-- x:begin -->\n\nnew\n\n<!-- x:end -->\nb\n<!-- y:begin -->\n<!-- y:end -->\n"
        );
        assert_eq!(replace_section(&replaced, "x", "new"), Some(replaced.clone()));
        assert_eq!(replace_section(document, "z", "new"), None);
    }
}

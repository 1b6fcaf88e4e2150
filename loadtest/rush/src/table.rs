//! Markdown tables with aligned columns.

pub(crate) struct MarkdownTable {
    rows: Vec<Vec<String>>,
}

impl MarkdownTable {
    /// The first column is text (aligned left), all others are numbers (aligned right).
    pub(crate) fn new(heads: &[&str]) -> Self {
        Self { rows: vec![heads.iter().map(|head| (*head).to_owned()).collect()] }
    }

    /// Adds a row; missing cells stay empty.
    pub(crate) fn add_row(&mut self, mut cells: Vec<String>) {
        cells.resize(self.rows[0].len(), String::new());
        self.rows.push(cells);
    }

    pub(crate) fn render(&self) -> String {
        let width = |column: usize| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> =
            (0..self.rows[0].len()).map(|column| width(column).max(3)).collect();
        let mut text = String::new();
        for (at, row) in self.rows.iter().enumerate() {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                text.push_str("| ");
                let padding = " ".repeat(width - cell.chars().count());
                let (left, right) =
                    if column == 0 { ("", padding.as_str()) } else { (padding.as_str(), "") };
                text.extend([left, cell, right, " "]);
            }
            text.push_str("|\n");
            if at == 0 {
                for (column, width) in widths.iter().enumerate() {
                    text.push_str(if column == 0 { "|:" } else { "|-" });
                    text.push_str(&"-".repeat(*width));
                    text.push_str(if column == 0 { "-" } else { ":" });
                }
                text.push_str("|\n");
            }
        }
        text
    }
}

/// Formats a number with three significant digits.
pub(crate) fn figure(number: f64) -> String {
    if !number.is_finite() {
        return "–".to_owned();
    }
    match number.abs() {
        size if size >= 99.95 => format!("{number:.0}"),
        size if size >= 9.995 => format!("{number:.1}"),
        size if size >= 0.9995 || size == 0.0 => format!("{number:.2}"),
        _ => format!("{number:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_columns_are_aligned() {
        let mut table = MarkdownTable::new(&["what", "n"]);
        table.add_row(vec!["µs".to_owned(), "12345".to_owned()]);
        table.add_row(vec!["longer".to_owned()]);
        let lines = [
            "| what   |     n |",
            "|:-------|------:|",
            "| µs     | 12345 |",
            "| longer |       |",
            "",
        ];
        assert_eq!(table.render(), lines.join("\n"));
    }

    #[test]
    fn figures_have_three_significant_digits() {
        let shown: Vec<_> =
            [0.0, 0.012_34, 0.999_9, 1.234, 12.34, 123.4, 99.96, 45_678.9, f64::NAN]
                .into_iter()
                .map(figure)
                .collect();
        assert_eq!(shown, ["0.00", "0.012", "1.00", "1.23", "12.3", "123", "100", "45679", "–"]);
    }
}

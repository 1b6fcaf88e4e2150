//! What a run came to: as a table for the terminal, and as one HTML file that needs nothing else.

use std::collections::BTreeMap;

use super::checks::Check;
use super::measure::{Series, Step};
use super::plot::{Line, Upwards, chart, escape};
use super::seen::Seen;
use crate::table::{Table, figure};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:920px;margin:2em auto;padding:0 1em;color:#222}\
table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .7em;border-bottom:1px solid #ddd;text-align:right}\
td:first-child,th:first-child{text-align:left}.kept td:first-child{color:#00704a}.broken{background:#fde8e4;font-weight:600}\
svg{width:100%;height:auto;margin:1em 0}svg text{font:12px system-ui,sans-serif}svg .title{font-weight:600}\
svg .grid{stroke:#ddd}svg .end{text-anchor:end}svg .mid{text-anchor:middle}";

const READING: &str = "Latencies count from the moment at which a request was due by the schedule (or by the poll_after_ms of the last \
answer), so they hold what a stalled service made others wait; «as sent» counts from the sending instead, as a closed loop would. The \
generator's timers tick in milliseconds: up to one of them is its own.";

/// Everything that is told of a run.
pub(crate) struct Report {
    pub(crate) title: String,
    pub(crate) machine: String,
    pub(crate) seconds: f64,
    pub(crate) steps: BTreeMap<Step, Series>,
    pub(crate) seen: Vec<Seen>,
    pub(crate) checks: Vec<Check>,
}

impl Report {
    /// Whether every promise was kept.
    pub(crate) fn kept(&self) -> bool {
        self.checks.iter().all(|check| check.kept)
    }

    /// For the terminal, as Markdown.
    pub(crate) fn text(&self) -> String {
        let mut table = Table::new(&STEP_HEADS);
        self.step_rows().into_iter().for_each(|row| table.row(row));
        let mut text = format!("{}\n{}\n\n{}\n", self.title, self.machine, table.render());
        for (end, users) in self.ends() {
            text.push_str(&format!("{end}: {users} users\n"));
        }
        text.push('\n');
        for check in &self.checks {
            let word = if check.kept { "kept  " } else { "BROKEN" };
            text.push_str(&format!("{word} {}: {}\n", check.name, check.detail));
        }
        text
    }

    /// One self-contained HTML file.
    pub(crate) fn html(&self) -> String {
        let verdict = if self.kept() { "Every promise was kept." } else { "A promise was broken." };
        let mut checks = String::new();
        for check in &self.checks {
            let (class, word) = if check.kept { ("kept", "kept") } else { ("broken", "BROKEN") };
            let (name, detail) = (escape(check.name), escape(&check.detail));
            checks.push_str(&format!(
                "<tr class=\"{class}\"><td>{word}</td><td>{name}</td><td>{detail}</td></tr>"
            ));
        }
        let ends: Vec<_> =
            self.ends().into_iter().map(|(end, users)| format!("{}: {users}", escape(end))).collect();
        let title = escape(&self.title);
        [
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">".to_owned(),
            format!(
                "<title>{title}</title><style>{STYLE}</style><h1>{title}</h1><p>{}</p>",
                escape(&self.machine)
            ),
            format!("<h2>{verdict}</h2><table>{checks}</table><p>{}</p>", ends.join(" · ")),
            format!("<h2>Latency</h2>{}<p>{}</p>", self.step_table(), escape(READING)),
            chart(
                "99th percentile of each second, from when it was due",
                "ms",
                Upwards::Powers,
                &self.latency(0.99),
            ),
            chart("median of each second", "ms", Upwards::Powers, &self.latency(0.5)),
            format!("<h2>The crowd</h2>{}", chart("so far", "users", Upwards::Even, &self.crowd())),
            "</html>\n".to_owned(),
        ]
        .concat()
    }

    fn step_rows(&self) -> Vec<Vec<String>> {
        let row = |(step, series): (&Step, &Series)| {
            let (due, sent) = (series.due(), series.sent());
            let ms = |value: u64| figure(value as f64 / 1e3);
            let failed: Vec<_> =
                series.failures.iter().map(|(status, count)| format!("{count}×{status}")).collect();
            vec![
                step.name().to_owned(),
                due.len().to_string(),
                figure(due.len() as f64 / self.seconds),
                ms(due.value_at_quantile(0.5)),
                ms(due.value_at_quantile(0.99)),
                ms(due.value_at_quantile(0.999)),
                ms(due.max()),
                ms(sent.value_at_quantile(0.99)),
                if failed.is_empty() { "0".to_owned() } else { failed.join(" ") },
            ]
        };
        self.steps.iter().map(row).collect()
    }

    fn step_table(&self) -> String {
        let row = |tag: &str, cells: &[String]| {
            let cells: String = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
            format!("<tr>{cells}</tr>")
        };
        let rows: String = self.step_rows().iter().map(|cells| row("td", cells)).collect();
        format!("<table>{}{rows}</table>", row("th", &STEP_HEADS.map(str::to_owned)))
    }

    fn ends(&self) -> BTreeMap<&'static str, usize> {
        let mut ends = BTreeMap::new();
        for user in &self.seen {
            *ends.entry(user.end.name()).or_default() += 1;
        }
        ends
    }

    fn latency(&self, quantile: f64) -> Vec<Line> {
        let line = |(step, series): (&Step, &Series)| Line {
            name: step.name().to_owned(),
            points: series.over_time(quantile),
        };
        self.steps.iter().map(line).filter(|line| !line.points.is_empty()).collect()
    }

    fn crowd(&self) -> Vec<Line> {
        let line = |name: &str, of: fn(&Seen) -> Option<u64>| Line {
            name: name.to_owned(),
            points: so_far(self.seen.iter().filter_map(of)),
        };
        let lines = [
            line("came", |user| (user.came.1 > 0).then_some(user.came.0)),
            line("let in", |user| user.active),
            line("won", |user| user.won),
        ];
        lines.into_iter().filter(|line| !line.points.is_empty()).collect()
    }
}

const STEP_HEADS: [&str; 9] =
    ["step", "answers", "a second", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "p99 ms as sent", "failed"];

/// How many moments lie before each tenth of a second up to the last.
fn so_far(moments: impl Iterator<Item = u64>) -> Vec<(f64, f64)> {
    let mut moments: Vec<_> = moments.collect();
    moments.sort_unstable();
    let Some(last) = moments.last() else { return Vec::new() };
    let tenths = 0..=last / 100_000 + 1;
    tenths
        .map(|tenth| (tenth as f64 / 10.0, moments.partition_point(|at| *at < tenth * 100_000) as f64))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::seen::End;
    use std::time::{Duration, Instant};

    fn report(kept: bool) -> Report {
        let start = Instant::now();
        let mut join = Series::default();
        for n in 0..100 {
            let due = start + Duration::from_millis(40 * n);
            join.record(start, due, due, due + Duration::from_millis(2));
        }
        join.failures.insert(503, 3);
        let user = |n: u64| Seen {
            came: (n * 40_000, n * 40_000 + 2_000),
            active: Some(n * 40_000 + 2_000),
            end: End::SoldOut,
            ..Seen::new(n)
        };
        Report {
            title: "a <run>".to_owned(),
            machine: "2 cores".to_owned(),
            seconds: 4.0,
            steps: BTreeMap::from([(Step::Join, join)]),
            seen: (0..100).map(user).collect(),
            checks: vec![Check { name: "issued = quota", kept, detail: "5 & 5".to_owned() }],
        }
    }

    #[test]
    fn a_broken_promise_is_told_in_both() {
        let (well, broken) = (report(true), report(false));
        assert!(well.kept() && !broken.kept());
        assert!(
            well.text().contains("kept   issued = quota: 5 & 5")
                && broken.text().contains("BROKEN issued = quota")
        );
        assert!(
            well.html().contains("Every promise was kept.")
                && broken.html().contains("A promise was broken.")
        );
        assert!(well.text().contains("sold out before their turn: 100 users"));
    }

    #[test]
    fn the_page_asks_nobody_and_shows_its_lines() {
        let html = report(true).html();
        assert!(html.contains("a &lt;run&gt;") && html.contains("3×503") && html.contains("5 &amp; 5"));
        assert_eq!(html.matches("<svg").count(), 3);
        for outside in ["http", "src=", "href=", "url(", "@import", "<script"] {
            assert!(!html.contains(outside), "{outside}");
        }
    }

    #[test]
    fn what_came_so_far_only_grows_and_ends_with_all() {
        let line = so_far([50_000, 150_000, 150_000, 950_000].into_iter());
        assert_eq!((line[0], line[1], line[2]), ((0.0, 0.0), (0.1, 1.0), (0.2, 3.0)));
        assert_eq!(line.last().unwrap().1, 4.0);
        assert!(so_far(std::iter::empty()).is_empty());
    }
}

//! A plot: right answers a second on a logarithmic scale, one bar a strategy, and whether its books were right.

use std::fmt::Write;

use crate::load::{Outcome, Workload};
use crate::table::figure;

const LEFT: f64 = 300.0;
const WIDTH: f64 = 560.0;
const ROW: f64 = 26.0;
const TOP: f64 = 56.0;
/// The right end of the scale, as a power of ten.
const DECADES: u32 = 6;

/// Draws one workload.
pub(crate) fn svg(workload: Workload, outcomes: &[Outcome]) -> String {
    let x = |rate: f64| rate.max(1.0).log10().min(f64::from(DECADES)) / f64::from(DECADES) * WIDTH;
    let height = TOP + ROW * outcomes.len() as f64 + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"12\" y=\"24\" font-size=\"16\">{}</text>\n\
         <text x=\"12\" y=\"44\" fill=\"#555\">right answers a second; red: money lost, too many issued, or one issued twice</text>\n",
        LEFT + WIDTH + 90.0,
        workload.title(),
    );
    // Writing to a String can't fail.
    for decade in 0..=DECADES {
        let (at, bottom) = (LEFT + x(10f64.powi(decade.cast_signed())), height - 24.0);
        let _ = writeln!(
            svg,
            "<line x1=\"{at}\" x2=\"{at}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"#ddd\"/>\
             <text x=\"{at}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{}</text>",
            bottom + 16.0,
            10u64.pow(decade),
        );
    }
    for (row, outcome) in outcomes.iter().enumerate() {
        let (y, width) = (TOP + ROW * row as f64, x(outcome.rate()));
        let fill = if outcome.verdict.anomalies() == 0 { "#2b7a4b" } else { "#c0392b" };
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{}\" width=\"{width:.1}\" height=\"{}\" fill=\"{fill}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{}</text>",
            LEFT - 8.0,
            y + 17.0,
            outcome.name,
            y + 4.0,
            ROW - 8.0,
            LEFT + width + 6.0,
            y + 17.0,
            figure(outcome.rate()),
        );
    }
    svg + "</svg>\n"
}

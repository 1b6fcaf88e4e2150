//! Line charts as SVG, made here so that a report needs nothing from outside.

use std::fmt::Write as _;

/// The size of a chart, in pixels.
const SIZE: (f64, f64) = (900.0, 300.0);
/// Room for the words at the left, top, right and bottom.
const LEFT: f64 = 70.0;
const TOP: f64 = 30.0;
const RIGHT: f64 = 130.0;
const BOTTOM: f64 = 40.0;
/// The colours of the lines, told apart also by those who see few.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"];

/// A line with its name.
pub(crate) struct Line {
    pub(crate) name: String,
    /// Seconds and values, in order of time.
    pub(crate) points: Vec<(f64, f64)>,
}

/// How values are laid out upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upwards {
    /// From zero, evenly.
    Even,
    /// By powers of ten, for latencies.
    Powers,
}

/// A chart over seconds.
pub(crate) fn chart(title: &str, unit: &str, upwards: Upwards, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let last = points().map(|(at, _)| *at).fold(1.0, f64::max);
    let highest = points().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let lowest = points().map(|(_, value)| *value).filter(|value| *value > 0.0).fold(highest, f64::min);
    let ticks = match upwards {
        Upwards::Even => even(highest),
        Upwards::Powers => powers(lowest, highest),
    };
    let (bottom, top) = (ticks[0], ticks[ticks.len() - 1]);
    let share = |value: f64| match upwards {
        Upwards::Even => value / top,
        Upwards::Powers => (value.max(bottom) / bottom).log10() / (top / bottom).log10(),
    };
    let x = |at: f64| LEFT + at / last * (SIZE.0 - LEFT - RIGHT);
    let y = |value: f64| SIZE.1 - BOTTOM - share(value) * (SIZE.1 - TOP - BOTTOM);
    let mut svg =
        format!("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">", SIZE.0, SIZE.1, escape(title));
    let mut put = |text: std::fmt::Arguments<'_>| {
        // Writing to a String can't fail.
        let _ = svg.write_fmt(text);
    };
    put(format_args!(
        "<text x=\"{LEFT}\" y=\"18\" class=\"title\">{} ({})</text>",
        escape(title),
        escape(unit)
    ));
    for value in &ticks {
        let (y, right) = (y(*value), SIZE.0 - RIGHT);
        put(format_args!("<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" class=\"grid\"/>"));
        put(format_args!(
            "<text x=\"{}\" y=\"{:.1}\" class=\"end\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            crate::table::figure(*value)
        ));
    }
    for at in even(last).into_iter().filter(|at| *at <= last) {
        put(format_args!(
            "<text x=\"{:.1}\" y=\"{}\" class=\"mid\">{at} s</text>",
            x(at),
            SIZE.1 - BOTTOM + 18.0
        ));
    }
    for (at, line) in lines.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let path: Vec<_> =
            line.points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        put(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        ));
        let (left, down) = (SIZE.0 - RIGHT + 10.0, TOP + 12.0 + 18.0 * at as f64);
        put(format_args!("<text x=\"{left}\" y=\"{down}\" fill=\"{colour}\">{}</text>", escape(&line.name)));
    }
    svg.push_str("</svg>");
    svg
}

/// Round steps from zero to beyond the highest.
fn even(highest: f64) -> Vec<f64> {
    let power = 10_f64.powf((highest / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|by| by * power).find(|step| step * 5.0 >= highest);
    let step = step.unwrap_or(highest);
    (0..=5).map(|n| f64::from(n) * step).take_while(|value| value - step < highest).collect()
}

/// Powers of ten from below the lowest to beyond the highest.
fn powers(lowest: f64, highest: f64) -> Vec<f64> {
    let mut value = 10_f64.powf(lowest.log10().floor());
    let mut all = vec![value];
    while value < highest || all.len() < 2 {
        value *= 10.0;
        all.push(value);
    }
    all
}

/// Text that can stand in HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_around_the_values() {
        assert_eq!(even(10.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(even(7_321.0), [0.0, 2_000.0, 4_000.0, 6_000.0, 8_000.0]);
        assert_eq!(powers(0.5, 30.0).len(), 4);
        assert_eq!(powers(1.0, 1.0), [1.0, 10.0]);
    }

    #[test]
    fn a_chart_keeps_its_lines_inside() {
        let lines = [Line {
            name: "a < b".to_owned(),
            points: (0..100).map(|n| (f64::from(n), f64::from(n * n))).collect(),
        }];
        for upwards in [Upwards::Even, Upwards::Powers] {
            let svg = chart("t", "ms", upwards, &lines);
            assert!(svg.contains("a &lt; b") && svg.ends_with("</svg>"));
            let (_, points) = svg.split_once("points=\"").unwrap();
            for point in points.split_once('"').unwrap().0.split(' ') {
                let (x, y) = point.split_once(',').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!(
                    (LEFT..=SIZE.0 - RIGHT).contains(&x) && (TOP - 0.1..=SIZE.1 - BOTTOM + 0.1).contains(&y),
                    "{point}"
                );
            }
        }
        assert!(chart("empty", "ms", Upwards::Powers, &[]).ends_with("</svg>"));
    }
}

//! Line plots as SVG with classes instead of colours, so that the page's style decides about light
//! and dark. Its own small code and no plotting crate: those write colours and font sizes into each
//! element, and bring text metrics that a browser has anyway.
//!
//! Whoever points at a place sees the values there: each x has an invisible column with a `<title>`,
//! which needs no script.

use std::fmt::Write as _;

use super::units;

const WIDTH: f64 = 640.0;
const WIDE: f64 = 1_294.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 38.0;

/// More points than pixels show nothing: beyond this many, neighbours are drawn as their largest.
const POINTS: usize = 600;

/// How values are placed on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Evenly, from 0.
    Linear,
    /// By their logarithm.
    Log,
    /// By the logarithm of 1 / (1 - p), labelled as percentiles.
    Percentile,
}

/// What values mean, for their labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Seconds since the measured phase began.
    Seconds,
    /// Nanoseconds.
    Nanoseconds,
    /// A plain number with this behind it.
    Plain(&'static str),
    /// Bytes.
    Bytes,
}

impl Unit {
    fn label(self, value: f64) -> String {
        match self {
            Self::Seconds => format!("{} s", short(value)),
            Self::Nanoseconds => tick_time(value),
            Self::Plain(unit) => format!("{}{unit}", short(value)),
            Self::Bytes if value >= 1_048_576.0 => format!("{} MiB", short(value / 1_048_576.0)),
            Self::Bytes => units::bytes(value),
        }
    }

    fn exact(self, value: f64) -> String {
        match self {
            Self::Nanoseconds => units::nanoseconds(value),
            Self::Plain(unit) => format!("{}{unit}", units::si(value)),
            Self::Seconds | Self::Bytes => self.label(value),
        }
    }
}

/// A number of a tick: no more digits than it needs.
fn short(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        v if v < 1e3 => (value, ""),
        v if v < 1e6 => (value / 1e3, "k"),
        v if v < 1e9 => (value / 1e6, "M"),
        _ => (value / 1e9, "G"),
    };
    let text = format!("{scaled:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    let text = if text == "-0" { "0" } else { text };
    if unit.is_empty() {
        text.to_owned()
    } else {
        format!("{text} {unit}")
    }
}

fn tick_time(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        v if v < 1e3 => (value, "ns"),
        v if v < 1e6 => (value / 1e3, "µs"),
        v if v < 1e9 => (value / 1e6, "ms"),
        _ => (value / 1e9, "s"),
    };
    format!("{} {unit}", short(scaled))
}

/// An axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub(crate) scale: Scale,
    pub(crate) unit: Unit,
    pub(crate) name: &'static str,
}

/// A line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// Number of its colour.
    pub(crate) colour: usize,
    pub(crate) dashed: bool,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A plot.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    /// The `id` of its figure.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// Whether it takes the whole width of the page.
    pub(crate) wide: bool,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
}

/// What is shown of an axis, and the pixels that it is shown on.
#[derive(Clone, Copy, Debug)]
struct Range {
    scale: Scale,
    unit: Unit,
    low: f64,
    high: f64,
    from_px: f64,
    to_px: f64,
}

impl Range {
    fn new(axis: Axis, values: impl Iterator<Item = f64>, from_px: f64, to_px: f64) -> Self {
        let (mut low, mut high) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |range, value| {
                (range.0.min(value), range.1.max(value))
            });
        if !low.is_finite() {
            (low, high) = (1.0, 10.0);
        }
        match axis.scale {
            Scale::Linear => {
                low = low.min(0.0);
                if axis.unit != Unit::Seconds {
                    high *= 1.06;
                }
            }
            Scale::Log => {
                low = low.log10();
                high = high.log10();
                // Whole decades make the best labels, but an almost empty one costs the picture its
                // height: a half is taken then.
                low = (low * 2.0).floor() / 2.0;
                high = (high * 2.0).ceil() / 2.0;
            }
            Scale::Percentile => {
                low = 0.0;
                high = high.log10();
            }
        }
        if high - low < 1e-9 {
            high = low + 1.0;
        }
        Self {
            scale: axis.scale,
            unit: axis.unit,
            low,
            high,
            from_px,
            to_px,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Linear => value,
            Scale::Log | Scale::Percentile => value.max(1e-9).log10(),
        };
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.from_px + share * (self.to_px - self.from_px)
    }

    /// Value of each tick and whether it has a label.
    fn ticks(&self) -> Vec<(f64, bool)> {
        match self.scale {
            Scale::Linear => {
                // Round in the unit that the labels are in.
                let unit = match (self.unit, self.high) {
                    (Unit::Bytes, high) if high >= 1_048_576.0 => 1_048_576.0,
                    (Unit::Bytes, high) if high >= 1_024.0 => 1_024.0,
                    _ => 1.0,
                };
                let step = step((self.high - self.low) / unit) * unit;
                let first = (self.low / step).ceil();
                (0..64_u32)
                    .map(|at| (first + f64::from(at)) * step)
                    .take_while(|value| *value <= self.high * (1.0 + 1e-9))
                    .map(|value| (value, true))
                    .collect()
            }
            Scale::Log => self.decades(),
            Scale::Percentile => (0..12_i32)
                .map(|nines| 10_f64.powi(nines))
                .take_while(|value| value.log10() <= self.high + 1e-9)
                .map(|value| (value, true))
                .collect(),
        }
    }

    /// 1 to 9 in each decade; the decades have labels, and 3 too where there are few of them.
    fn decades(&self) -> Vec<(f64, bool)> {
        let few = self.high - self.low <= 2.6;
        let mut ticks = Vec::new();
        for decade in -9..=15_i32 {
            for digit in 1..=9_u32 {
                let value = f64::from(digit) * 10_f64.powi(decade);
                let at = value.log10();
                if at >= self.low - 1e-9 && at <= self.high + 1e-9 {
                    ticks.push((value, digit == 1 || few && digit == 3));
                }
            }
        }
        ticks
    }
}

/// 1, 2 or 5 times a power of ten, so that about five ticks fit.
fn step(span: f64) -> f64 {
    let rough = span / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(10.0 * power)
}

/// `99.9 %` for 1,000.
fn percentile(inverse: f64) -> String {
    let text = format!("{:.7}", 100.0 - 100.0 / inverse);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

impl Plot {
    /// The figure: title, legend, picture.
    pub(crate) fn html(&self) -> String {
        let mut out = format!(
            "<figure class=\"card plot{}\" id=\"{}\"><figcaption><h3>{}</h3><div class=\"legend\">",
            if self.wide { " wide" } else { "" },
            self.id,
            escape(self.title)
        );
        for line in &self.lines {
            let _ = write!(
                out,
                "<span><i class=\"c{}{}\"></i>{}</span>",
                line.colour,
                if line.dashed { " dashed" } else { "" },
                escape(&line.name)
            );
        }
        out += "</div></figcaption>";
        self.svg(&mut out);
        out += "</figure>\n";
        out
    }

    fn width(&self) -> f64 {
        if self.wide { WIDE } else { WIDTH }
    }

    fn svg(&self, out: &mut String) {
        let width = self.width();
        let points = || self.lines.iter().flat_map(|line| line.points.iter());
        let x = Range::new(self.x, points().map(|point| point.0), LEFT, width - RIGHT);
        let y = Range::new(self.y, points().map(|point| point.1), HEIGHT - BOTTOM, TOP);
        let _ = write!(
            out,
            "<svg viewBox=\"0 0 {width} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(self.title)
        );
        if self.x.unit == Unit::Seconds && x.low < 0.0 {
            let _ = write!(
                out,
                "<rect class=\"warm\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\">\
                 <title>ramp and warm-up: not measured</title></rect>",
                x.place(0.0) - LEFT,
                HEIGHT - BOTTOM - TOP
            );
        }
        self.grid(out, &x, &y);
        for line in &self.lines {
            let mut path = String::new();
            for (at, (px, py)) in thinned(&line.points).into_iter().enumerate() {
                let verb = if at == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{verb}{:.1} {:.1}", x.place(px), y.place(py));
            }
            if line.points.len() == 1 {
                path += "h0.1";
            }
            let _ = write!(
                out,
                "<path class=\"line c{}{}\" d=\"{path}\"/>",
                line.colour,
                if line.dashed { " dashed" } else { "" }
            );
        }
        self.columns(out, &x);
        *out += "</svg>";
    }

    fn grid(&self, out: &mut String, x: &Range, y: &Range) {
        let (right, bottom) = (self.width() - RIGHT, HEIGHT - BOTTOM);
        for (value, labelled) in y.ticks() {
            let at = y.place(value);
            let class = if labelled { "grid" } else { "grid minor" };
            let _ = write!(
                out,
                "<path class=\"{class}\" d=\"M{LEFT} {at:.1}H{right}\"/>"
            );
            if labelled {
                let _ = write!(
                    out,
                    "<text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    LEFT - 7.0,
                    at + 3.5,
                    self.y.unit.label(value)
                );
            }
        }
        for (value, _) in x.ticks() {
            let at = x.place(value);
            let label = if self.x.scale == Scale::Percentile {
                percentile(value)
            } else {
                self.x.unit.label(value)
            };
            let _ = write!(
                out,
                "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>\
                 <text class=\"x\" x=\"{at:.1}\" y=\"{:.1}\">{label}</text>",
                bottom + 15.0
            );
        }
        let _ = write!(
            out,
            "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>\
             <text class=\"name\" x=\"{right}\" y=\"{:.1}\">{}</text>",
            HEIGHT - 6.0,
            escape(self.x.name)
        );
    }

    /// The columns that say what the values are where somebody points.
    fn columns(&self, out: &mut String, x: &Range) {
        let Some(longest) = self
            .lines
            .iter()
            .max_by_key(|line| line.points.len())
            .map(|line| thinned(&line.points))
        else {
            return;
        };
        let edges: Vec<f64> = longest.iter().map(|point| x.place(point.0)).collect();
        for (at, (value, _)) in longest.iter().enumerate() {
            let here = edges.get(at).copied().unwrap_or(LEFT);
            let half =
                |other: Option<&f64>, end: f64| other.map_or(end, |o| f64::midpoint(here, *o));
            let left = half(at.checked_sub(1).and_then(|at| edges.get(at)), LEFT);
            let right = half(edges.get(at + 1), self.width() - RIGHT);
            let mut title = if self.x.scale == Scale::Percentile {
                percentile(*value)
            } else {
                self.x.unit.exact(*value)
            };
            for line in &self.lines {
                if let Some(y) = nearest(&line.points, *value) {
                    let _ = write!(title, "\n{}: {}", line.name, self.y.unit.exact(y));
                }
            }
            let _ = write!(
                out,
                "<rect class=\"hit\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{:.1}\" \
                 height=\"{:.1}\"><title>{}</title></rect>",
                (right - left).max(0.5),
                HEIGHT - BOTTOM - TOP,
                escape(&title)
            );
        }
    }
}

fn nearest(points: &[(f64, f64)], x: f64) -> Option<f64> {
    points
        .iter()
        .min_by(|a, b| (a.0 - x).abs().total_cmp(&(b.0 - x).abs()))
        .map(|point| point.1)
}

/// At most [`POINTS`] points; neighbours become their largest, so that no peak is lost.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    points
        .chunks(points.len().div_ceil(POINTS).max(1))
        .filter_map(|chunk| chunk.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1)))
        .collect()
}

/// Text for HTML, in content and in attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(range: &Range) -> Vec<f64> {
        range
            .ticks()
            .into_iter()
            .filter(|tick| tick.1)
            .map(|tick| tick.0)
            .collect()
    }

    fn axis(scale: Scale) -> Axis {
        Axis {
            scale,
            unit: Unit::Plain(""),
            name: "",
        }
    }

    #[test]
    fn ticks_are_round() {
        let range = Range::new(axis(Scale::Linear), [3.0, 19_400.0].into_iter(), 0.0, 1.0);
        assert_eq!(labels(&range), [0.0, 5_000.0, 10_000.0, 15_000.0, 20_000.0]);
        let range = Range::new(axis(Scale::Log), [2e4, 3e8].into_iter(), 0.0, 1.0);
        assert_eq!(labels(&range), [1e4, 1e5, 1e6, 1e7, 1e8]);
        let range = Range::new(
            axis(Scale::Percentile),
            [1.0, 2_000.0].into_iter(),
            0.0,
            1.0,
        );
        let names: Vec<String> = labels(&range).into_iter().map(percentile).collect();
        assert_eq!(names, ["0 %", "90 %", "99 %", "99.9 %"]);
    }

    #[test]
    fn places_are_inside() {
        for scale in [Scale::Linear, Scale::Log, Scale::Percentile] {
            let range = Range::new(axis(scale), [5.0].into_iter(), 10.0, 20.0);
            for value in [-1.0, 0.0, 5.0, 1e12] {
                let at = range.place(value);
                assert!((10.0..=20.0).contains(&at), "{scale:?} {value}: {at}");
            }
        }
    }

    #[test]
    fn a_peak_survives_the_thinning() {
        let points: Vec<(f64, f64)> = (0..10_000_u32)
            .map(|x| (f64::from(x), if x == 7_777 { 9.0 } else { 1.0 }))
            .collect();
        let thin = thinned(&points);
        assert!(thin.len() <= POINTS);
        assert!(thin.contains(&(7_777.0, 9.0)));
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(
            escape("<a href=\"x\">&"),
            "&lt;a href=&quot;x&quot;&gt;&amp;"
        );
    }
}

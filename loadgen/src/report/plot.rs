//! Line plots as plain SVG: no script, no font, nothing fetched.

use std::fmt::Write;

/// How an axis is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As it is.
    Linear,
    /// By powers of ten.
    Log,
    /// A quantile below 1, by the nines: 0.9, 0.99 and 0.999 are as far apart as each other.
    Nines,
}

impl Scale {
    fn at(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Log => value.max(1e-12).log10(),
            Scale::Nines => -(1.0 - value.min(0.999_999_9)).log10(),
        }
    }
}

/// One line.
#[derive(Clone, Debug)]
pub struct Series {
    /// What the legend calls it.
    pub name: String,
    /// Its points, by x.
    pub points: Vec<(f64, f64)>,
    /// Bounds of y around each x, drawn as a shade.
    pub band: Vec<(f64, f64, f64)>,
}

impl Series {
    /// A plain line.
    pub fn line(name: &str, points: Vec<(f64, f64)>) -> Series {
        Series { name: name.to_owned(), points, band: Vec::new() }
    }
}

/// A plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Above it.
    pub title: String,
    /// Below its x axis.
    pub x_label: String,
    /// Beside its y axis.
    pub y_label: String,
    /// Its x axis.
    pub x: Scale,
    /// Its y axis.
    pub y: Scale,
    /// How y values are written.
    pub show: fn(f64) -> String,
    /// Its lines.
    pub series: Vec<Series>,
}

/// Okabe and Ito's colours, which the colour-blind tell apart.
pub const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#a08000"];

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 46.0;

struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Axis {
    fn over(scale: Scale, values: impl Iterator<Item = f64>) -> Axis {
        let values: Vec<f64> = values.filter(|v| v.is_finite() && (scale != Scale::Log || *v > 0.0)).collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = match scale {
            _ if low <= high => (low, high),
            Scale::Log => (1.0, 10.0),
            _ => (0.0, 1.0),
        };
        match scale {
            Scale::Linear => {
                let (low, high) = (low.min(0.0), if high > low.min(0.0) { high } else { low.min(0.0) + 1.0 });
                let step = nice((high - low) / 5.0);
                let (first, last) = ((low / step).floor() as i64, (high / step).ceil() as i64);
                let ticks = (first..=last).map(|at| at as f64 * step).collect();
                Axis { scale, low: first as f64 * step, high: last as f64 * step, ticks }
            }
            Scale::Log => {
                let (first, mut last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
                last = last.max(first + 1);
                let ticks: Vec<f64> = (first..=last).map(|power| 10f64.powi(power)).collect();
                Axis { scale, low: f64::from(first), high: f64::from(last), ticks }
            }
            Scale::Nines => Axis { scale, low: 0.0, high: 4.0, ticks: vec![0.0, 0.5, 0.9, 0.99, 0.999, 0.9999] },
        }
    }

    fn part(&self, value: f64) -> f64 {
        ((self.scale.at(value) - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

/// One, two or five times a power of ten, at least so much.
fn nice(step: f64) -> f64 {
    let power = 10f64.powf(step.max(1e-12).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * power).find(|nice| *nice >= step * 0.999).unwrap_or(step)
}

/// Escapes text for HTML and SVG.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl Plot {
    /// The plot as an `svg` element.
    pub fn svg(&self) -> String {
        let x = Axis::over(self.x, self.series.iter().flat_map(|series| series.points.iter().map(|point| point.0)));
        let bands = self.series.iter().flat_map(|series| series.band.iter().flat_map(|band| [band.1, band.2]));
        let y = Axis::over(self.y, self.series.iter().flat_map(|s| s.points.iter().map(|p| p.1)).chain(bands));
        let px = |value: f64| LEFT + x.part(value) * (WIDTH - LEFT - RIGHT);
        let py = |value: f64| HEIGHT - BOTTOM - y.part(value) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"currentColor\"><title>{0}</title>\
             <text x=\"{LEFT}\" y=\"16\" font-size=\"14\" font-weight=\"600\">{0}</text>",
            escape(&self.title)
        );
        for tick in &y.ticks {
            let at = py(*tick);
            let _ = write!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"currentColor\" opacity=\"0.14\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                escape(&(self.show)(*tick))
            );
        }
        for tick in &x.ticks {
            let text = match self.x {
                Scale::Nines if *tick == 0.0 => "0".to_owned(),
                Scale::Nines => format!("p{}", trim(tick * 100.0)),
                _ => trim(*tick),
            };
            let at = px(*tick);
            let anchor = if at > WIDTH - RIGHT - 20.0 { "end" } else { "middle" };
            let _ = write!(
                svg,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{0}\" stroke=\"currentColor\" opacity=\"0.08\"/>\
                 <text x=\"{at:.1}\" y=\"{1}\" text-anchor=\"{anchor}\">{text}</text>",
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 16.0
            );
        }
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" opacity=\"0.75\">{}</text>\
             <text transform=\"translate(14 {}) rotate(-90)\" text-anchor=\"middle\" opacity=\"0.75\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 8.0,
            escape(&self.x_label),
            (TOP + HEIGHT - BOTTOM) / 2.0,
            escape(&self.y_label)
        );
        for (number, series) in self.series.iter().enumerate() {
            draw(&mut svg, series, COLOURS[number % COLOURS.len()], &px, &py);
        }
        self.legend(&mut svg);
        svg + "</svg>"
    }

    fn legend(&self, svg: &mut String) {
        if self.series.len() < 2 {
            return;
        }
        let mut right = WIDTH - RIGHT;
        for (number, series) in self.series.iter().enumerate().rev() {
            right -= 22.0 + series.name.chars().count() as f64 * 6.6;
            let _ = write!(
                svg,
                "<rect x=\"{right:.1}\" y=\"8\" width=\"10\" height=\"10\" rx=\"2\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"17\">{}</text>",
                COLOURS[number % COLOURS.len()],
                right + 14.0,
                escape(&series.name)
            );
        }
    }
}

fn draw(svg: &mut String, series: &Series, colour: &str, px: &dyn Fn(f64) -> f64, py: &dyn Fn(f64) -> f64) {
    if !series.band.is_empty() {
        let upper = series.band.iter().map(|(x, _, high)| format!("{:.1},{:.1}", px(*x), py(*high)));
        let lower = series.band.iter().rev().map(|(x, low, _)| format!("{:.1},{:.1}", px(*x), py(*low)));
        let outline: Vec<String> = upper.chain(lower).collect();
        let _ = write!(svg, "<polygon points=\"{}\" fill=\"{colour}\" opacity=\"0.15\"/>", outline.join(" "));
    }
    let points: Vec<String> = series.points.iter().map(|(x, y)| format!("{:.1},{:.1}", px(*x), py(*y))).collect();
    let _ = write!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" stroke-linejoin=\"round\"/>",
        points.join(" ")
    );
    if series.points.len() <= 40 {
        for (x, y) in &series.points {
            let _ = write!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"{colour}\"/>", px(*x), py(*y));
        }
    }
}

/// A number without needless digits.
pub fn trim(value: f64) -> String {
    if value.abs() >= 10_000.0 {
        return format!("{}k", trim(value / 1000.0));
    }
    let text = format!("{value:.3}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Style of every page: light and dark as the reader's system is.
pub const STYLE: &str = "<style>:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;\
max-width:68rem;padding:0 1rem}h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}table{border-collapse:collapse;\
font-variant-numeric:tabular-nums;margin:.6rem 0}th,td{padding:.22rem .7rem;text-align:right;border-bottom:1px solid \
color-mix(in srgb,currentColor 15%,transparent)}th:first-child,td:first-child{text-align:left}td{white-space:nowrap}.wrap td,.wrap th{white-space:normal;text-align:left}th{font-weight:600}\
svg{width:100%;height:auto;margin:.4rem 0}.note{border-left:4px solid #e69f00;padding:.2rem .8rem;margin:.5rem 0}\
.bad{border-left-color:#d55e00}small,.dim{opacity:.72}code{font-size:.9em;overflow-wrap:anywhere}\
div.scroll{overflow-x:auto}.scroll table{font-size:.9em}.scroll td:first-child{white-space:normal;min-width:13rem}</style>";

/// A whole page.
pub fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{}</title>{STYLE}</head><body>{body}</body></html>\n",
        escape(title)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_everything_lies_inside() {
        let axis = Axis::over(Scale::Linear, [0.0, 437.0].into_iter());
        assert_eq!(axis.ticks, [0.0, 100.0, 200.0, 300.0, 400.0, 500.0]);
        let axis = Axis::over(Scale::Log, [30.0, 4000.0].into_iter());
        assert_eq!(axis.ticks, [10.0, 100.0, 1000.0, 10000.0]);
        assert!((axis.part(100.0) - 1.0 / 3.0).abs() < 1e-9);
        let nines = Axis::over(Scale::Nines, [0.5].into_iter());
        assert!((nines.part(0.99) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn an_empty_plot_is_a_plot_and_text_is_escaped() {
        let plot = Plot {
            title: "a < b".to_owned(),
            x_label: String::new(),
            y_label: String::new(),
            x: Scale::Linear,
            y: Scale::Log,
            show: trim,
            series: vec![Series::line("x & y", Vec::new()), Series::line("z", vec![(1.0, 0.0)])],
        };
        let svg = plot.svg();
        assert!(svg.contains("a &lt; b") && svg.contains("x &amp; y") && !svg.contains("NaN"));
    }
}

//! Drawing into SVG text: the page's colours, legends, and titles that a screen reader finds.
//!
//! Colours are light ones; the page's style sheet maps each to a dark one where the reader wants that. A system has its
//! colour and its marker in every plot, so that no plot speaks by colour alone.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Paper of a file that stands alone; in the page it is the page's.
pub(super) const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFE);
/// Text and axes.
pub(super) const INK: RGBColor = RGBColor(0x1F, 0x23, 0x28);
/// Lines of the grid.
pub(super) const GRID: RGBColor = RGBColor(0xD9, 0xDE, 0xE3);
/// One for each system, told apart also by readers who confuse red and green; 4.5:1 on paper at least.
const SYSTEMS: [RGBColor; 8] = [
    RGBColor(0x00, 0x5F, 0x9E),
    RGBColor(0xB8, 0x47, 0x00),
    RGBColor(0x00, 0x73, 0x57),
    RGBColor(0xA3, 0x3C, 0x8A),
    RGBColor(0x86, 0x60, 0x00),
    RGBColor(0x54, 0x58, 0x5E),
    RGBColor(0x5B, 0x45, 0xB8),
    RGBColor(0x8C, 0x1D, 0x2F),
];
/// Width of every plot.
pub(super) const WIDTH_PX: u32 = 760;
/// Height of a legend's line.
pub(super) const LEGEND_LINE_PX: u32 = 20;
const LEGEND_COLUMNS: usize = 2;
const MARKER_PX: i32 = 5;
const TEXT_PX: i32 = 16;

/// What is drawn on.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// How drawing ends.
pub(super) type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// A finished plot.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    /// Name of its file, without the ending.
    pub(crate) name: String,
    /// What it shows.
    pub(crate) title: String,
    /// The SVG.
    pub(crate) svg: String,
}

impl Plot {
    /// Draws `height_px` high; `description` says in words what is to be seen.
    pub(super) fn draw(
        name: String,
        title: String,
        description: &str,
        height_px: u32,
        draw: impl FnOnce(&Area<'_>) -> Drawn,
    ) -> Self {
        let mut text = String::new();
        {
            let area = SVGBackend::with_string(&mut text, (WIDTH_PX, height_px)).into_drawing_area();
            let drawn = area.fill(&PAPER).and_then(|()| draw(&area)).and_then(|()| area.present());
            drawn.expect("drawing into memory does not fail");
        }
        let svg = with_title(&text, &name, &title, description);
        Self { name, title, svg }
    }
}

/// Puts title and description where SVG wants them, and says that the whole is a picture.
fn with_title(svg: &str, name: &str, title: &str, description: &str) -> String {
    let (open, rest) = svg.split_once('>').expect("an SVG begins with its element");
    let (title, description) = (escaped(title), escaped(description));
    format!(
        "{open} role=\"img\" aria-labelledby=\"{name}-title {name}-description\">\n\
         <title id=\"{name}-title\">{title}</title>\n<desc id=\"{name}-description\">{description}</desc>{rest}"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A system's colour and marker, by its place among all systems of the report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mark {
    pub(super) color: RGBColor,
    shape: usize,
}

impl Mark {
    /// Of system number `at`.
    pub(super) fn of(at: usize) -> Self {
        Self { color: SYSTEMS[at % SYSTEMS.len()], shape: at }
    }

    /// The marker's corners around the origin.
    fn corners(self) -> Vec<(i32, i32)> {
        const R: i32 = MARKER_PX;
        match self.shape % 6 {
            0 => (0..12).map(|at| turn(f64::from(at) / 12.0)).collect(),
            1 => vec![(-R, -R), (R, -R), (R, R), (-R, R)],
            2 => vec![(0, -R - 1), (R + 1, R), (-R - 1, R)],
            3 => vec![(0, -R - 2), (R + 2, 0), (0, R + 2), (-R - 2, 0)],
            4 => vec![(-R - 1, -R), (R + 1, -R), (0, R + 1)],
            _ => [
                (-2, -6),
                (2, -6),
                (2, -2),
                (6, -2),
                (6, 2),
                (2, 2),
                (2, 6),
                (-2, 6),
                (-2, 2),
                (-6, 2),
                (-6, -2),
                (-2, -2),
            ]
            .to_vec(),
        }
    }

    /// The marker at a point of the area.
    pub(super) fn at(self, (x, y): (i32, i32)) -> Polygon<(i32, i32)> {
        let corners: Vec<(i32, i32)> = self.corners().iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        Polygon::new(corners, self.color.filled())
    }

    /// The outline of the marker, for what did not hold.
    pub(super) fn hollow_at(self, (x, y): (i32, i32)) -> [Polygon<(i32, i32)>; 2] {
        let inner = self.corners().iter().map(|(dx, dy)| (x + dx / 2, y + dy / 2)).collect::<Vec<_>>();
        [self.at((x, y)), Polygon::new(inner, PAPER.filled())]
    }
}

fn turn(share: f64) -> (i32, i32) {
    let (sine, cosine) = (share * std::f64::consts::TAU).sin_cos();
    let radius = f64::from(MARKER_PX);
    ((cosine * radius).round() as i32, (sine * radius).round() as i32)
}

/// Ordinary text in `color`.
pub(super) fn text_style(color: RGBColor) -> TextStyle<'static> {
    ("sans-serif", TEXT_PX).into_font().color(&color)
}

/// Bold text.
pub(super) fn bold_style() -> TextStyle<'static> {
    ("sans-serif", TEXT_PX, FontStyle::Bold).into_font().color(&INK)
}

/// Text whose middle is at the given point.
pub(super) fn centred(style: TextStyle<'static>) -> TextStyle<'static> {
    style.pos(Pos::new(HPos::Center, VPos::Center))
}

/// Text that ends at the given point.
pub(super) fn right(style: TextStyle<'static>) -> TextStyle<'static> {
    style.pos(Pos::new(HPos::Right, VPos::Center))
}

/// Height of a legend of so many entries.
pub(super) fn legend_px(entries: usize) -> u32 {
    LEGEND_LINE_PX * entries.div_ceil(LEGEND_COLUMNS) as u32 + LEGEND_LINE_PX / 2
}

/// Draws marks with their names, in two columns from `top` down.
pub(super) fn draw_legend(area: &Area<'_>, top: u32, entries: &[(Mark, String)]) -> Drawn {
    for (at, (mark, name)) in entries.iter().enumerate() {
        let (column, line) = ((at % LEGEND_COLUMNS) as u32, (at / LEGEND_COLUMNS) as u32);
        let x = 24 + (column * WIDTH_PX / LEGEND_COLUMNS as u32).cast_signed();
        let y = (top + line * LEGEND_LINE_PX + 10).cast_signed();
        area.draw(&PathElement::new(vec![(x, y), (x + 28, y)], mark.color.stroke_width(2)))?;
        area.draw(&mark.at((x + 14, y)))?;
        let style = text_style(INK).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(name.clone(), (x + 36, y), style))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_cannot_leave_its_element() {
        let plot = Plot::draw("p".to_owned(), "a < b".to_owned(), "</desc><script>", 10, |_| Ok(()));
        assert!(plot.svg.contains("<title id=\"p-title\">a &lt; b</title>"), "{}", plot.svg);
        assert!(!plot.svg.contains("<script>"));
        assert!(plot.svg.contains("role=\"img\" aria-labelledby=\"p-title p-description\""));
    }

    #[test]
    fn neighbours_differ_in_colour_and_in_marker() {
        for (at, other) in (0..6).flat_map(|at| (0..at).map(move |other| (at, other))) {
            let (one, two) = (Mark::of(at), Mark::of(other));
            assert_ne!(one.color, two.color);
            assert_ne!(one.corners(), two.corners());
        }
    }

    /// WCAG 2: relative luminance and contrast.
    #[test]
    fn every_colour_stands_out_from_paper() {
        let light = |RGBColor(r, g, b): RGBColor| {
            let part = |value: u8| {
                let share = f64::from(value) / 255.0;
                if share <= 0.03928 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b)
        };
        for color in SYSTEMS.into_iter().chain([INK]) {
            let contrast = (light(PAPER) + 0.05) / (light(color) + 0.05);
            assert!(contrast >= 4.5, "{color:?} {contrast}");
        }
    }
}

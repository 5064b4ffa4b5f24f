//! The plots with axes: latency by percentile, and latency by offered rate.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::canvas::{Area, Drawn, GRID, INK, Mark, Plot, centred, draw_legend, legend_px, right, text_style};
use super::group::{Group, is_held, latency_us, offered_text};
use super::spread::number;
use crate::results::Row;

const PANEL_PX: u32 = 330;
/// With more powers of ten on an axis, only they have a label.
const POWERS_DENSE_MAX: usize = 5;
const STEPS_PER_NINE: u32 = 12;
/// The percentile at which the scale ends, as `-log10` of what is left, if there are events enough.
const NINES_MAX: f64 = 5.0;
/// Percentiles with a marker and a line of the grid, as the share that is left.
const TICKS: [(f64, &str); 7] = [
    (1.0, "0 %"),
    (0.5, "50 %"),
    (0.1, "90 %"),
    (0.01, "99 %"),
    (0.001, "99.9 %"),
    (0.0001, "99.99 %"),
    (0.00001, "99.999 %"),
];

type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, LogCoord<f64>>>;

/// One line with its markers.
struct Line {
    mark: Mark,
    points: Vec<(f64, f64)>,
    markers: Vec<(f64, f64, Held)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Yes,
    No,
}

/// What is along the axes of a panel.
struct Axes<'a> {
    x: std::ops::Range<f64>,
    x_ticks: Vec<f64>,
    x_text: &'a dyn Fn(f64) -> String,
    x_name: &'a str,
    y_name: &'a str,
}

/// Latency at each percentile, of the row that stands for each system; `None` without any latency.
pub(super) fn percentiles(group: &Group<'_>, mark_of: &dyn Fn(&str) -> Mark, prefix: &str) -> Option<Plot> {
    let rows: Vec<&Row> = group.systems().iter().filter_map(|system| group.representative(system)).collect();
    let count = |row: &Row| row.rounds.iter().map(|round| round.load.latency.count).min().unwrap_or(0);
    let rows: Vec<&Row> = rows.into_iter().filter(|row| count(row) > 0).collect();
    let nines_of = |row: &Row| (count(row) as f64).log10().min(NINES_MAX);
    let most = rows.iter().map(|row| nines_of(row)).fold(f64::NAN, f64::max);
    let most = if most > 0.0 { most } else { return None };
    let lines: Vec<Line> =
        rows.iter().map(|row| percentile_line(row, mark_of(&row.system), nines_of(row))).collect();
    let legend: Vec<(Mark, String)> = rows
        .iter()
        .map(|row| (mark_of(&row.system), format!("{}, {}", row.system, offered_text(row))))
        .collect();
    let described: Vec<String> = rows.iter().map(|row| described(row)).collect();
    let height = PANEL_PX + legend_px(legend.len());
    let title = format!("Latency by percentile, {}", group.title());
    let text = |nines: f64| {
        let tick = TICKS.iter().find(|(left, _)| (-left.log10() - nines).abs() < 0.01);
        tick.map_or_else(String::new, |(_, text)| (*text).to_owned())
    };
    let axes = Axes {
        x: 0.0..most,
        x_ticks: TICKS.iter().map(|(left, _)| -left.log10()).filter(|nines| *nines <= most + 1e-9).collect(),
        x_text: &text,
        x_name: "percentile of answers",
        y_name: "latency, ms",
    };
    Some(Plot::draw(
        format!("{prefix}latency-{}", group.slug()),
        title,
        &described.join("; "),
        height,
        |area| {
            let (panel, _) = area.split_vertically(PANEL_PX);
            draw_panel(area, &panel, &axes, &lines)?;
            draw_legend(area, PANEL_PX, &legend)
        },
    ))
}

fn described(row: &Row) -> String {
    let at = |quantile| {
        latency_us(row, quantile).map_or_else(|| "-".to_owned(), |us| number(us.median / 1000.0, 2))
    };
    format!(
        "{}, {}: p50 {} ms, p99 {} ms, p99.9 {} ms",
        row.system,
        offered_text(row),
        at(0.5),
        at(0.99),
        at(0.999)
    )
}

fn percentile_line(row: &Row, mark: Mark, nines: f64) -> Line {
    let at = |nines: f64| latency_us(row, 1.0 - 10f64.powf(-nines)).map(|us| (nines, us.median / 1000.0));
    let steps = (nines * f64::from(STEPS_PER_NINE)).floor() as u32;
    let xs = (0..=steps).map(|step| f64::from(step) / f64::from(STEPS_PER_NINE)).chain([nines]);
    let ticks = TICKS.iter().map(|(left, _)| -left.log10()).filter(|tick| *tick <= nines + 1e-9);
    Line {
        mark,
        points: xs.filter_map(at).collect(),
        markers: ticks.filter_map(at).map(|(x, y)| (x, y, Held::Yes)).collect(),
    }
}

/// Latency at p50 and at p99 by the offered rate; `None` unless a system was offered two rates.
pub(super) fn hockey(group: &Group<'_>, mark_of: &dyn Fn(&str) -> Mark, prefix: &str) -> Option<Plot> {
    let systems: Vec<&str> =
        group.systems().into_iter().filter(|system| group.open_loop(system).len() > 1).collect();
    let all: Vec<&Row> = systems.iter().flat_map(|system| group.open_loop(system)).collect();
    let most = all.iter().filter_map(|row| row.offered_per_s).fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let legend: Vec<(Mark, String)> =
        systems.iter().map(|system| (mark_of(system), (*system).to_owned())).collect();
    let described: Vec<String> = all.iter().map(|row| described(row)).collect();
    let height = 2 * PANEL_PX + legend_px(legend.len());
    let title = format!("Throughput against latency, {}", group.title());
    Some(Plot::draw(format!("{prefix}load-{}", group.slug()), title, &described.join("; "), height, |area| {
        let (upper, rest) = area.split_vertically(PANEL_PX);
        let (lower, _) = rest.split_vertically(PANEL_PX);
        for (panel, quantile, y_name) in [(&upper, 0.5, "p50, ms"), (&lower, 0.99, "p99, ms")] {
            let lines: Vec<Line> = systems
                .iter()
                .map(|system| rate_line(&group.open_loop(system), mark_of(system), quantile))
                .collect();
            let axes = Axes {
                x: 0.0..most * 1.03,
                x_ticks: Vec::new(),
                x_text: &|rate| number(rate, 0),
                x_name: "offered, events per second (hollow: not held)",
                y_name,
            };
            draw_panel(area, panel, &axes, &lines)?;
        }
        draw_legend(area, 2 * PANEL_PX, &legend)
    }))
}

fn rate_line(rows: &[&Row], mark: Mark, quantile: f64) -> Line {
    let point = |row: &Row| Some((row.offered_per_s?, latency_us(row, quantile)?.median / 1000.0));
    let held = |row: &Row| if is_held(row) { Held::Yes } else { Held::No };
    Line {
        mark,
        points: rows.iter().filter_map(|row| point(row)).collect(),
        markers: rows.iter().filter_map(|row| point(row).map(|(x, y)| (x, y, held(row)))).collect(),
    }
}

fn draw_panel(
    area: &Area<'_>,
    panel: &DrawingArea<SVGBackend<'_>, Shift>,
    axes: &Axes<'_>,
    lines: &[Line],
) -> Drawn {
    let values = || lines.iter().flat_map(|line| &line.points).map(|point| point.1).filter(|ms| *ms > 0.0);
    let least = values().fold(f64::INFINITY, f64::min).min(1000.0);
    let most = values().fold(least * 2.0, f64::max);
    let mut builder = ChartBuilder::on(panel);
    builder.margin_top(14).margin_right(26).x_label_area_size(46).y_label_area_size(74);
    let ends = least * 0.8..most * 1.25;
    let mut chart = builder.build_cartesian_2d(axes.x.clone(), ends.clone().log_scale())?;
    draw_mesh(&mut chart, axes)?;
    for &x in &axes.x_ticks {
        let line = PathElement::new(vec![(x, ends.start), (x, ends.end)], GRID);
        chart.draw_series(std::iter::once(line))?;
        let (at_x, at_y) = chart.backend_coord(&(x, ends.start));
        area.draw(&Text::new((axes.x_text)(x), (at_x, at_y + 12), centred(text_style(INK))))?;
    }
    for y in ticks(&ends) {
        let line = PathElement::new(vec![(axes.x.start, y), (axes.x.end, y)], GRID);
        chart.draw_series(std::iter::once(line))?;
        let (at_x, at_y) = chart.backend_coord(&(axes.x.start, y));
        area.draw(&Text::new(milliseconds(y), (at_x - 8, at_y), right(text_style(INK))))?;
    }
    draw_lines(area, &mut chart, lines)
}

/// 1, 2 and 5 of each power of ten, or the powers alone where those are many.
fn ticks(range: &std::ops::Range<f64>) -> Vec<f64> {
    let powers = range.start.log10().floor() as i32..=range.end.log10().ceil() as i32;
    let steps: &[f64] = if powers.clone().count() > POWERS_DENSE_MAX { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let all = powers.flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
    all.filter(|tick| range.contains(tick)).collect()
}

/// Without ticks of its own, an axis gets the library's.
fn draw_mesh(chart: &mut Chart<'_>, axes: &Axes<'_>) -> Drawn {
    let mut mesh = chart.configure_mesh();
    if axes.x_ticks.is_empty() {
        mesh.x_labels(7);
    } else {
        mesh.disable_x_mesh().x_labels(0);
    }
    mesh.x_desc(axes.x_name)
        .y_desc(axes.y_name)
        .disable_y_mesh()
        .y_labels(0)
        .y_label_formatter(&|_| String::new())
        .x_label_formatter(&|x| (axes.x_text)(*x))
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .label_style(text_style(INK))
        .draw()
}

/// Lines, then markers above all of them.
fn draw_lines(area: &Area<'_>, chart: &mut Chart<'_>, lines: &[Line]) -> Drawn {
    for line in lines {
        chart.draw_series(LineSeries::new(line.points.clone(), line.mark.color.stroke_width(2)))?;
    }
    for line in lines {
        for &(x, y, held) in &line.markers {
            let at = chart.backend_coord(&(x, y));
            if held == Held::Yes {
                area.draw(&line.mark.at(at))?;
            } else {
                line.mark.hollow_at(at).iter().try_for_each(|part| area.draw(part))?;
            }
        }
    }
    Ok(())
}

fn milliseconds(ms: f64) -> String {
    let digits = if ms >= 10.0 { 0 } else { (1.0 - ms.log10()).ceil().clamp(0.0, 3.0) as usize };
    let text = number(ms, digits);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_not_too_many() {
        assert_eq!(ticks(&(0.3..12.0)), [0.5, 1.0, 2.0, 5.0, 10.0]);
        assert_eq!(ticks(&(0.003..20_000.0)), [0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0]);
        let texts = [0.005, 0.05, 0.2, 1.0, 20.0, 5000.0].map(milliseconds);
        assert_eq!(texts, ["0.005", "0.05", "0.2", "1", "20", "5,000"]);
    }
}

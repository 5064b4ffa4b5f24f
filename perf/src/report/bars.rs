//! The stacked bars: CPU for each event by hop and by stage. Parts stand in a fixed order and are named below each bar.

use plotters::prelude::*;

use super::canvas::{
    Area, Drawn, INK, LEGEND_LINE_PX, Mark, Plot, WIDTH_PX, bold_style, centred, text_style,
};
use super::group::{Group, cpu, offered_text};
use crate::results::{Row, Stages};

const LEFT_PX: i32 = 20;
const BAR_PX: i32 = 18;
const BAR_STEP_PX: u32 = 78;
const SPAN_PX: f64 = (WIDTH_PX as f64) - 40.0;
/// Share of full colour of each part of a hop's bar.
const STRENGTHS: [f64; 4] = [1.0, 0.66, 0.4, 0.2];
/// A stage's number is written into its part if that is so wide.
const NUMBER_PX_MIN: i32 = 14;
/// Stages with a colour of their own; the smaller ones are one part.
const STAGES_MAX: usize = 9;
/// Paul Tol's muted scheme, and whether light text stands out on it.
const STAGE_COLORS: [(RGBColor, RGBColor); STAGES_MAX + 1] = [
    (RGBColor(0x33, 0x22, 0x88), LIGHT),
    (RGBColor(0x88, 0xCC, 0xEE), DARK),
    (RGBColor(0x11, 0x77, 0x33), LIGHT),
    (RGBColor(0xDD, 0xCC, 0x77), DARK),
    (RGBColor(0x88, 0x22, 0x55), LIGHT),
    (RGBColor(0x44, 0xAA, 0x99), DARK),
    (RGBColor(0xCC, 0x66, 0x77), DARK),
    (RGBColor(0x99, 0x99, 0x33), DARK),
    (RGBColor(0xAA, 0x44, 0x99), LIGHT),
    (RGBColor(0xBB, 0xBB, 0xBB), DARK),
];
const LIGHT: RGBColor = RGBColor(0xFF, 0xFF, 0xFD);
const DARK: RGBColor = RGBColor(0x10, 0x10, 0x10);
const OTHERS: &str = "other stages";

/// Whole-machine CPU of each system for one event, by hop; `None` where it was not measured.
pub(super) fn hops(group: &Group<'_>, mark_of: &dyn Fn(&str) -> Mark, prefix: &str) -> Option<Plot> {
    let rows: Vec<&Row> = group.systems().iter().filter_map(|system| group.busiest(system)).collect();
    let machine = |row: &Row| cpu(row, |cpu| cpu.machine).map_or(0.0, |us| us.median);
    let most = rows
        .iter()
        .map(|row| machine(row).max(parts(row).iter().map(|part| part.1).sum()))
        .fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let described: Vec<String> = rows
        .iter()
        .map(|row| format!("{}: {:.1} µs, {}", row.system, machine(row), words(&parts(row))))
        .collect();
    let name = format!("{prefix}cpu-{}", group.slug());
    let title = format!("CPU for each event, {}", group.title());
    let height = BAR_STEP_PX * rows.len() as u32;
    Some(Plot::draw(name, title, &described.join("; "), height, |area| {
        for (at, row) in rows.iter().enumerate() {
            let top = (BAR_STEP_PX * at as u32).cast_signed();
            let head = format!("{}, {}: {:.1} µs", row.system, offered_text(row), machine(row));
            area.draw(&Text::new(head, (LEFT_PX, top + 8), bold_style()))?;
            let mut x = f64::from(LEFT_PX);
            for ((_, us), strength) in parts(row).into_iter().zip(STRENGTHS) {
                let width = us / most * SPAN_PX;
                draw_part(area, (x, top + 28), width, mark_of(&row.system).color.mix(strength).filled())?;
                x += width;
            }
            area.draw(&Text::new(words(&parts(row)), (LEFT_PX, top + 52), text_style(INK)))?;
        }
        Ok(())
    }))
}

/// First hop, second hop, threads of the kernel, and what no process was charged for.
fn parts(row: &Row) -> [(&'static str, f64); 4] {
    let median =
        |part: fn(&crate::results::CpuPerEvent) -> f64| cpu(row, part).map_or(0.0, |us| us.median.max(0.0));
    [
        ("hop 1", median(|cpu| cpu.first)),
        ("hop 2", median(|cpu| cpu.second)),
        ("kernel threads", median(|cpu| cpu.kernel)),
        ("interrupts", median(|cpu| cpu.machine - cpu.first - cpu.second - cpu.kernel)),
    ]
}

fn words(parts: &[(&'static str, f64)]) -> String {
    let named = parts.iter().filter(|(_, us)| *us >= 0.05);
    named.map(|(name, us)| format!("{name} {us:.1}")).collect::<Vec<_>>().join(" · ")
}

/// CPU of each profiled hop, by stage of an event's life; `None` if nothing was profiled.
pub(super) fn stages(all: &[Stages], prefix: &str) -> Option<Plot> {
    let names = stage_names(all);
    let total = |stages: &Stages| stages.stages.iter().map(|stage| stage.1).sum::<f64>();
    let most = all.iter().map(total).fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let head = |one: &Stages| format!("{}, {}, {}: {:.2} µs", one.system, one.hop, one.scenario, total(one));
    let described: Vec<String> = all.iter().map(head).collect();
    let legend_top = 56 * all.len() as u32 + 8;
    let height = legend_top + LEGEND_LINE_PX * (names.len() as u32 + 1).div_ceil(2) + 8;
    let title = "CPU for each event by stage".to_owned();
    Some(Plot::draw(format!("{prefix}stages"), title, &described.join("; "), height, |area| {
        for (at, one) in all.iter().enumerate() {
            let top = 56 * (at as u32).cast_signed();
            area.draw(&Text::new(head(one), (LEFT_PX, top + 8), bold_style()))?;
            draw_stages(area, top + 28, one, &names, most)?;
        }
        draw_stage_legend(area, legend_top.cast_signed(), &names)
    }))
}

fn draw_stages(area: &Area<'_>, top: i32, one: &Stages, names: &[&str], most: f64) -> Drawn {
    let mut x = f64::from(LEFT_PX);
    for at in 0..=names.len() {
        let is_here = |stage: &str| names.iter().position(|name| *name == stage).unwrap_or(names.len()) == at;
        let us: f64 = one.stages.iter().filter(|stage| is_here(&stage.0)).map(|stage| stage.1).sum();
        let width = us / most * SPAN_PX;
        let (color, ink) = stage_color(at, names.len());
        draw_part(area, (x, top), width, color.filled())?;
        if width as i32 >= NUMBER_PX_MIN {
            let middle = ((x + width / 2.0) as i32, top + BAR_PX / 2);
            area.draw(&Text::new((at + 1).to_string(), middle, centred(text_style(ink))))?;
        }
        x += width;
    }
    Ok(())
}

fn draw_stage_legend(area: &Area<'_>, top: i32, names: &[&str]) -> Drawn {
    for (at, name) in names.iter().copied().chain([OTHERS]).enumerate() {
        let x = LEFT_PX + ((at % 2) as u32).cast_signed() * (WIDTH_PX / 2).cast_signed();
        let y = top + ((at / 2) as u32).cast_signed() * LEGEND_LINE_PX.cast_signed();
        let (color, ink) = stage_color(at, names.len());
        area.draw(&Rectangle::new([(x, y), (x + 24, y + 16)], color.filled()))?;
        area.draw(&Text::new((at + 1).to_string(), (x + 12, y + 8), centred(text_style(ink))))?;
        area.draw(&Text::new(name.to_owned(), (x + 32, y + 2), text_style(INK)))?;
    }
    Ok(())
}

/// The grey one is for all stages without a colour of their own.
fn stage_color(at: usize, named: usize) -> (RGBColor, RGBColor) {
    STAGE_COLORS[if at >= named { STAGES_MAX } else { at }]
}

/// The stages that cost most in all bars together, the dearest first.
pub(super) fn stage_names(all: &[Stages]) -> Vec<&str> {
    let mut sums: Vec<(&str, f64)> = Vec::new();
    for (name, us) in all.iter().flat_map(|one| &one.stages) {
        match sums.iter_mut().find(|sum| sum.0 == name) {
            Some(sum) => sum.1 += us,
            None => sums.push((name, *us)),
        }
    }
    sums.sort_by(|left, right| right.1.total_cmp(&left.1));
    sums.into_iter().take(STAGES_MAX).map(|sum| sum.0).collect()
}

/// A part of a bar, with a gap of a pixel behind it.
fn draw_part(area: &Area<'_>, (x, y): (f64, i32), width: f64, style: ShapeStyle) -> Drawn {
    let (from, to) = (x.round() as i32, (x + width).round() as i32 - 1);
    if to <= from {
        return Ok(());
    }
    area.draw(&Rectangle::new([(from, y), (to, y + BAR_PX)], style))
}

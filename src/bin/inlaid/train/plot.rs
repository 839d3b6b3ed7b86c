//! Floor 6: figures of a run as pictures. Knows the log's form.

use crate::output::Failure;
use inlaid::Error;
use plotters::prelude::*;
use serde_json::Value;
use std::fmt::Display;
use std::path::Path;

/// Draws what `log` says of `key` at each step, and its running mean, to `out` as SVG.
///
/// # Errors
/// `Cannot` where the picture cannot be written.
pub fn curve(log: &Path, key: &str, out: &Path) -> Result<(), Failure> {
    let text = std::fs::read_to_string(log).map_err(Error::io(log))?;
    let point = |line: &str| -> Option<(f64, f64)> {
        let line: Value = serde_json::from_str(line).ok()?;
        let value = line.get(key)?.as_f64()?;
        Some((line.get("step")?.as_f64()?, value)).filter(|_| value.is_finite())
    };
    let points: Vec<(f64, f64)> = text.lines().filter_map(point).collect();
    if points.is_empty() {
        return Ok(());
    }
    let mut picture = String::new();
    draw(&points, key, &mut picture).map_err(|e| Failure::Cannot(format!("{}: {e}", out.display())))?;
    inlaid::format::write::whole_file(out, |file| {
        file.write_all(picture.as_bytes()).map_err(Error::io(out))
    })?;
    Ok(())
}

/// Steps that the running mean looks back, about.
const BACK: f64 = 20.0;

fn draw(points: &[(f64, f64)], key: &str, to: &mut String) -> Result<(), String> {
    fn said(e: impl Display) -> String {
        e.to_string()
    }
    let (first, last) = (points[0].0, points[points.len() - 1].0.max(points[0].0 + 1.0));
    let low = points.iter().map(|p| p.1).fold(f64::MAX, f64::min);
    let high = points.iter().map(|p| p.1).fold(f64::MIN, f64::max).max(low + 1e-6);
    let mut mean = points[0].1;
    let smooth: Vec<(f64, f64)> = points
        .iter()
        .map(|(step, value)| {
            mean += (value - mean) / BACK;
            (*step, mean)
        })
        .collect();
    let area = SVGBackend::with_string(to, (900, 480)).into_drawing_area();
    area.fill(&WHITE).map_err(said)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(first..last, low..high)
        .map_err(said)?;
    chart.configure_mesh().x_desc("step").y_desc(key).draw().map_err(said)?;
    let faint = RGBColor(170, 190, 220);
    chart.draw_series(LineSeries::new(points.iter().copied(), &faint)).map_err(said)?;
    chart.draw_series(LineSeries::new(smooth, BLUE.stroke_width(2))).map_err(said)?;
    area.present().map_err(said)
}

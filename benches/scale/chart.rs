//! Curves as a picture.

use plotters::prelude::*;
use std::path::Path;

/// One curve: what grows, what it costs, and the most that is promised.
pub(crate) struct Curve {
    pub(crate) title: &'static str,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) target: Option<f64>,
}

/// Draws the curves, two in a row.
///
/// # Panics
/// Where the file cannot be written.
pub(crate) fn draw(file: &Path, curves: &[Curve]) {
    let rows = curves.len().div_ceil(2);
    let height = u32::try_from(rows * 300).expect("a small number");
    let root = SVGBackend::new(file, (960, height)).into_drawing_area();
    root.fill(&WHITE).expect("a picture");
    for (area, curve) in root.split_evenly((rows, 2)).iter().zip(curves) {
        let last = |pick: fn(&(f64, f64)) -> f64| curve.points.iter().map(pick).fold(0.0, f64::max);
        let first = curve.points.iter().map(|(x, _)| *x).fold(f64::INFINITY, f64::min);
        let top = last(|(_, y)| *y).max(curve.target.unwrap_or_default()) * 1.15;
        let mut chart = ChartBuilder::on(area)
            .caption(curve.title, ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(56)
            .build_cartesian_2d((first..last(|(x, _)| *x)).log_scale(), 0.0..top)
            .expect("a chart");
        let labels = |x: &f64| format!("{x:.0}");
        chart
            .configure_mesh()
            .x_desc(curve.x)
            .y_desc(curve.y)
            .x_label_formatter(&labels)
            .light_line_style(TRANSPARENT)
            .draw()
            .expect("a mesh");
        chart.draw_series(LineSeries::new(curve.points.clone(), BLUE.stroke_width(2))).expect("a line");
        let dots = curve.points.iter().map(|point| Circle::new(*point, 3, BLUE.filled()));
        chart.draw_series(dots).expect("dots");
        if let Some(target) = curve.target {
            let line = [(first, target), (last(|(x, _)| *x), target)];
            chart.draw_series(LineSeries::new(line, RED.stroke_width(1))).expect("a line");
        }
    }
    root.present().expect("a file");
}

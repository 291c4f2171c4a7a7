//! Charts as SVG, to stand inside of a page.

use plotters::prelude::*;

/// A line of a chart: its values by hour, or by day, and whether it is what shall be.
pub(super) struct Line<'a> {
    pub(super) values: &'a [f64],
    pub(super) color: RGBColor,
}

pub(super) const BEFORE: RGBColor = RGBColor(0xb0, 0x4a, 0x3a);
pub(super) const AFTER: RGBColor = RGBColor(0x2f, 0x6d, 0xa8);
const AVERAGE: RGBColor = RGBColor(0x80, 0x80, 0x80);

/// Lines over hours of a week or over days; 1 is drawn across. None if it cannot be drawn.
pub(super) fn lines(
    lines: &[Line<'_>],
    (width, height): (u32, u32),
    at: impl Fn(f64) -> String,
) -> Option<String> {
    let count = lines.iter().map(|line| line.values.len()).max()?;
    let highest = lines.iter().flat_map(|line| line.values).copied();
    let highest = highest.fold(1.0_f64, f64::max) * 1.05;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(6)
            .x_label_area_size(22)
            .y_label_area_size(42)
            .build_cartesian_2d(0.0..count.max(2) as f64 - 1.0, 0.0..highest)
            .ok()?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(8)
            .y_labels(5)
            .x_label_formatter(&|x| at(*x))
            .y_label_formatter(&|share| format!("{:.0} %", share * 100.0))
            .light_line_style(WHITE)
            .draw()
            .ok()?;
        let across = [(0.0, 1.0), (count as f64 - 1.0, 1.0)];
        chart
            .draw_series(LineSeries::new(across, AVERAGE.stroke_width(1)))
            .ok()?;
        for line in lines {
            let points = line.values.iter().enumerate();
            let points = points.map(|(x, y)| (x as f64, *y));
            chart
                .draw_series(LineSeries::new(points, line.color.stroke_width(2)))
                .ok()?;
        }
        root.present().ok()?;
    }
    Some(svg)
}

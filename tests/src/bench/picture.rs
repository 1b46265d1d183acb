//! Throughput and p99 against orders in flight, as SVG. Both axes are logarithmic.

use std::{ops::Range, path::Path};

use anyhow::anyhow;
use plotters::{
    coord::Shift,
    prelude::{
        BindKeyPoints, ChartBuilder, Circle, Color, DrawingArea, IntoDrawingArea, IntoLogRange, LineSeries, PathElement,
        RGBColor, SVGBackend, SeriesLabelPosition, WHITE,
    },
};

use super::{
    cell::{Contender, Pace, Shape},
    summary::{Line, Medians, shapes},
};

/// Of one shape's row: throughput on the left, p99 on the right.
const WIDTH: u32 = 1_200;
const HEIGHT: u32 = 420;
/// Told apart without colours too, by their order in the legend and their markers' places.
const CONTENDERS: [(Contender, RGBColor); 3] = [
    (Contender::Ours, RGBColor(0, 114, 178)),
    (Contender::Against, RGBColor(213, 94, 0)),
    (Contender::Floor, RGBColor(110, 110, 110)),
];

/// Draws it; a row of two for each shape.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn draw(file: &Path, lines: &[Line]) -> anyhow::Result<()> {
    let shapes = shapes(lines);
    let rows = u32::try_from(shapes.len())?.max(1);
    let root = SVGBackend::new(file, (WIDTH, HEIGHT * rows)).into_drawing_area();
    root.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
    let areas = root.split_evenly((rows as usize, 2));
    for (index, shape) in shapes.into_iter().enumerate() {
        let throughput = Curves::of(shape, lines, |medians| medians.orders_per_second.median);
        let p99 = Curves::of(shape, lines, |medians| medians.p99_us.median / 1_000.0);
        throughput.draw(&areas[index * 2], &format!("{shape}: orders/s"))?;
        p99.draw(&areas[index * 2 + 1], &format!("{shape}: p99 in ms"))?;
    }
    root.present().map_err(|error| anyhow!("cannot write {}: {error}", file.display()))
}

/// One quantity of each contender, against orders in flight.
struct Curves(Vec<Curve>);

type Curve = (Contender, RGBColor, Vec<(f64, f64)>);

impl Curves {
    fn of(shape: Shape, lines: &[Line], quantity: fn(&Medians) -> f64) -> Self {
        let curve = |contender: Contender| {
            let mut points: Vec<(f64, f64)> = lines
                .iter()
                .filter(|line| line.cell.shape == shape && line.cell.contender == contender)
                .filter_map(|line| match line.cell.pace {
                    Pace::InFlight(number) => line.medians.as_ref().map(|medians| (f64::from(number), quantity(medians))),
                    Pace::PerSecond(_) => None,
                })
                .collect();
            points.sort_by(|left, right| left.0.total_cmp(&right.0));
            points
        };
        Self(CONTENDERS.into_iter().map(|(contender, color)| (contender, color, curve(contender))).collect())
    }

    /// Each that was measured, once.
    fn numbers_in_flight(&self) -> Vec<f64> {
        let mut numbers: Vec<f64> = self.0.iter().flat_map(|(_, _, points)| points).map(|point| point.0).collect();
        numbers.sort_by(f64::total_cmp);
        numbers.dedup();
        numbers
    }

    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>, title: &str) -> anyhow::Result<()> {
        let points = || self.0.iter().flat_map(|(_, _, points)| points);
        let Some(x) = around(points().map(|point| point.0)) else { return Ok(()) };
        let Some(y) = around(points().map(|point| point.1)) else { return Ok(()) };
        self.chart(area, title, x, y).map_err(|error| anyhow!("{error}"))
    }

    fn chart(
        &self,
        area: &DrawingArea<SVGBackend<'_>, Shift>,
        title: &str,
        x: Range<f64>,
        y: Range<f64>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d(x.log_scale().with_key_points(self.numbers_in_flight()), y.log_scale())?;
        chart
            .configure_mesh()
            .x_desc("orders in flight (of the floor: clients)")
            .x_label_formatter(&|number| format!("{number:.0}"))
            .y_label_formatter(&|quantity| format!("{quantity:.0}"))
            .light_line_style(WHITE)
            .draw()?;
        for (contender, color, points) in &self.0 {
            if points.is_empty() {
                continue;
            }
            let color = *color;
            chart
                .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?
                .label(contender.name())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .border_style(RGBColor(200, 200, 200))
            .draw()?;
        Ok(())
    }
}

/// A little more than the values take.
fn around(values: impl Iterator<Item = f64>) -> Option<Range<f64>> {
    let (low, high) = values
        .filter(|value| *value > 0.0)
        .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    (high > 0.0).then_some(low * 0.7..high * 1.5)
}

//! The run as a picture: orders in each second above, every fault below, all on one axis of time.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::anyhow;
use plotters::{
    coord::Shift,
    prelude::{AreaSeries, ChartBuilder, Color, DrawingArea, IntoDrawingArea, RGBColor, Rectangle, SVGBackend, Text, WHITE},
    style::{IntoFont, TextStyle},
};

use super::{
    inflict::Inflicted,
    plan::{Disturbance, Fault},
    report::Summary,
};

const WIDTH: u32 = 1_400;
const ORDERS_HEIGHT: u32 = 260;
const LANE_HEIGHT: u32 = 20;
/// Room for the axis of time and the legend, below the lanes.
const BELOW: u32 = 90;
const LEFT: u32 = 210;
const ORDERS: RGBColor = RGBColor(0, 114, 178);
/// A fault that is over at once is still to be seen.
const SHORTEST: Duration = Duration::from_millis(300);

/// What the colours mean.
const FAMILIES: [(&str, RGBColor); 6] = [
    ("kill -9", RGBColor(213, 94, 0)),
    ("SIGSTOP", RGBColor(204, 121, 167)),
    ("full disk", RGBColor(0, 0, 0)),
    ("cut or dropped", RGBColor(0, 114, 178)),
    ("late or slow", RGBColor(86, 180, 233)),
    ("a single message harmed", RGBColor(0, 158, 115)),
];

fn color(fault: Fault) -> RGBColor {
    let family = match fault {
        Fault::Kill(_) | Fault::KillDatabase => 0,
        Fault::Stop(_) => 1,
        Fault::FullDisk(_) | Fault::FullDatabaseDisk => 2,
        Fault::Link(_, disturbance) => match disturbance {
            Disturbance::Cut | Disturbance::Drop => 3,
            Disturbance::Delay | Disturbance::RequestsStall | Disturbance::AnswersStall | Disturbance::Slow(_) => 4,
            Disturbance::LosesCommit
            | Disturbance::LosesCommitAnswer
            | Disturbance::LosesAnswer
            | Disturbance::CutsRequest
            | Disturbance::CutsAnswer
            | Disturbance::Swallows => 5,
        },
    };
    FAMILIES[family].1
}

/// Draws it.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn draw(file: &Path, summary: &Summary) -> anyhow::Result<()> {
    let lanes = lanes(&summary.inflicted);
    let lanes_height = LANE_HEIGHT * u32::try_from(lanes.len().max(1))?;
    let root = SVGBackend::new(file, (WIDTH, ORDERS_HEIGHT + lanes_height + BELOW)).into_drawing_area();
    root.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
    let (above, below) = root.split_vertically(ORDERS_HEIGHT);
    let seconds = (summary.conditions.minutes * 60.0).max(1.0);
    orders(&above, summary, seconds).map_err(|error| anyhow!("{error}"))?;
    faults(&below, &lanes, seconds).map_err(|error| anyhow!("{error}"))?;
    root.present().map_err(|error| anyhow!("cannot write {}: {error}", file.display()))
}

type Lanes<'a> = BTreeMap<&'a str, Vec<&'a Inflicted>>;
type Drawn = Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn lanes(inflicted: &[Inflicted]) -> Lanes<'_> {
    let mut lanes = Lanes::new();
    for one in inflicted.iter().filter(|one| one.happened) {
        lanes.entry(&one.place).or_default().push(one);
    }
    lanes
}

fn orders(area: &Area<'_>, summary: &Summary, seconds: f64) -> Drawn {
    let most = summary.per_second.iter().copied().max().unwrap_or(0).max(1);
    let caption = format!(
        "{}, {} gateways, seed {}: {} orders acknowledged, {} faults, {}",
        summary.conditions.store,
        summary.conditions.gateways,
        summary.conditions.seed,
        summary.acknowledged,
        summary.inflicted.iter().filter(|one| one.happened).count(),
        summary.violations.in_words(),
    );
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 15))
        .margin_right(20)
        .margin_top(8)
        .y_label_area_size(LEFT)
        .build_cartesian_2d(0.0..seconds, 0.0..most as f64 * 1.05)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .y_labels(5)
        .y_desc("orders acknowledged in a second")
        .light_line_style(WHITE)
        .draw()?;
    let points = summary.per_second.iter().enumerate().map(|(second, orders)| (second as f64 + 0.5, *orders as f64));
    chart.draw_series(AreaSeries::new(points, 0.0, ORDERS.mix(0.3)).border_style(ORDERS))?;
    Ok(())
}

fn faults(area: &Area<'_>, lanes: &Lanes<'_>, seconds: f64) -> Drawn {
    let count = lanes.len().max(1);
    let (area, legend) = area.split_vertically(LANE_HEIGHT * u32::try_from(count)? + 50);
    let names: Vec<&str> = lanes.keys().copied().collect();
    let mut chart = ChartBuilder::on(&area)
        .margin_right(20)
        .x_label_area_size(40)
        .y_label_area_size(LEFT)
        .build_cartesian_2d(0.0..seconds, 0.0..count as f64)?;
    chart.configure_mesh().disable_mesh().y_labels(0).x_desc("seconds").draw()?;
    for (number, name) in names.iter().enumerate() {
        let low = (count - number - 1) as f64;
        for one in &lanes[name] {
            let began = one.began.as_secs_f64();
            let ended = (one.began + SHORTEST).max(one.ended).as_secs_f64();
            let bar = Rectangle::new([(began, low + 0.12), (ended, low + 0.88)], color(one.fault).filled());
            chart.draw_series(std::iter::once(bar))?;
        }
        let (_, y) = chart.backend_coord(&(0.0, low + 0.5));
        let top = area.get_base_pixel().1;
        let style = TextStyle::from(("sans-serif", 12).into_font());
        area.draw(&Text::new((*name).to_owned(), (8, y - top - 6), style))?;
    }
    let mut left = i32::try_from(LEFT)?;
    for (name, color) in FAMILIES {
        legend.draw(&Rectangle::new([(left, 8), (left + 14, 22)], color.filled()))?;
        legend.draw(&Text::new(name, (left + 20, 9), ("sans-serif", 13).into_font()))?;
        left += 60 + 7 * i32::try_from(name.len())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::report::tests::summary;

    #[test]
    fn the_picture_has_every_place_and_the_verdict() -> anyhow::Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        draw(file.path(), &summary())?;
        let picture = std::fs::read_to_string(file.path())?;
        assert!(picture.starts_with("<svg") && picture.contains("inventory"), "{picture}");
        assert!(picture.contains("0 lost, 0 doubled"), "{picture}");
        Ok(())
    }
}

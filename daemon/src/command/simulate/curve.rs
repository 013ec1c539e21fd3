//! How a run came along: lines while it runs, and a picture of them.

use std::fmt::Display;
use std::fs::Permissions;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use plotters::prelude::{
    BLACK, BLUE, ChartBuilder, IntoDrawingArea, IntoFont, LineSeries, RED, RGBColor, SVGBackend,
    WHITE,
};
use serde_json::json;
use starling_config::scenario::ScenarioFile;
use starling_learning::data::Shard;
use starling_node::sim::Simulation;
use starling_protocol::time::Time;

use super::rounded;
use crate::exit::{Code, Failure, say};

/// Looks at a run, equally spaced in age.
const LOOKS: f64 = 20.0;
/// Nodes and test rows that a look takes: it must cost little beside the run.
const LOOK_NODES: usize = 32;
const LOOK_ROWS: usize = 1000;

const GREEN: RGBColor = RGBColor(0, 110, 60);

/// One look.
#[derive(Clone, Copy, Debug)]
struct Point {
    seconds: f64,
    age: f64,
    mean: f64,
    worst: f64,
    consensus: f64,
    payload: f64,
}

/// A colour, and what it shows of a look.
type Line = (RGBColor, fn(&Point) -> f64);

/// All looks at one run.
pub(super) struct Curve {
    points: Vec<Point>,
    seed: u64,
    steps: f64,
    next_age: f64,
    json: bool,
    quiet: bool,
    shown: Instant,
}

impl Curve {
    /// Says nothing while it runs if it is `quiet`.
    pub(super) fn new(scenario: &ScenarioFile, json: bool, quiet: bool) -> Self {
        let (seed, steps) = (scenario.seed, f64::from(scenario.steps));
        let (points, next_age, shown) = (Vec::new(), 0.0, Instant::now());
        Self { points, seed, steps, next_age, json, quiet, shown }
    }

    /// Takes a look if it is time for one.
    pub(super) fn progress(&mut self, now: Time, simulation: &mut Simulation, test: &Shard) {
        let age = simulation.mean_age();
        let due = age >= self.next_age;
        if due {
            self.next_age = age + self.steps / LOOKS;
            self.look(now, age, simulation, test);
        } else if !self.json
            && !self.quiet
            && std::io::stderr().is_terminal()
            && self.shown.elapsed().as_millis() > 500
        {
            self.shown = Instant::now();
            let line =
                format!("\r{:8.1} s {age:8.1} of {} steps of age", now.as_secs_f64(), self.steps);
            // Progress is a courtesy.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    fn look(&mut self, now: Time, age: f64, simulation: &mut Simulation, test: &Shard) {
        let found = simulation.sample(test, LOOK_NODES, LOOK_ROWS);
        let mean = found.iter().sum::<f64>() / found.len().max(1) as f64;
        let worst = found.iter().copied().reduce(f64::min).unwrap_or_default();
        let point = Point {
            seconds: now.as_secs_f64(),
            age,
            mean,
            worst,
            consensus: simulation.consensus(),
            payload: simulation.payload_mean(),
        };
        if !self.quiet {
            self.show(&point);
        }
        self.points.push(point);
    }

    fn show(&self, point: &Point) {
        let Point { seconds, age, mean, worst, consensus, payload } = *point;
        if self.json {
            let line = json!({
                "event": "simulate.progress",
                "seed": self.seed,
                "virtual_seconds": rounded(seconds, 2),
                "age_mean": rounded(age, 1),
                "accuracy_served_mean": rounded(mean, 4),
                "accuracy_worst": rounded(worst, 4),
                "consensus": rounded(consensus, 6),
                "payload_bytes_per_node_mean": payload.round(),
            });
            return say(line.to_string());
        }
        if std::io::stderr().is_terminal() {
            let _ = std::io::stderr().write_all(b"\r\x1b[K");
        }
        if self.points.is_empty() {
            say("virtual s      age  mean %  worst %  consensus %  model MB");
        }
        say(format!(
            "{seconds:9.1} {age:8.1} {:7.2} {:8.2} {:12.3} {:9.3}",
            100.0 * mean,
            100.0 * worst,
            100.0 * consensus,
            payload / 1e6
        ));
    }

    /// Draws accuracy, consensus and bytes over time.
    pub(super) fn draw(&self, path: &Path, title: &str) -> Result<(), Failure> {
        let failed = |error: &dyn Display| {
            Failure::new(Code::Io, format!("cannot write {}: {error}", path.display()))
        };
        let mut text = String::new();
        {
            let root = SVGBackend::with_string(&mut text, (800, 900)).into_drawing_area();
            root.fill(&WHITE).map_err(|error| failed(&error))?;
            let panels = root.split_evenly((3, 1));
            let series: [(&str, &[Line]); 3] = [
                (
                    "accuracy on the common test rows, % (blue: mean, red: worst node)",
                    &[(BLUE, |p| 100.0 * p.mean), (RED, |p| 100.0 * p.worst)],
                ),
                ("consensus distance, % of the model", &[(BLACK, |p| 100.0 * p.consensus)]),
                ("model bytes sent per node, MB", &[(GREEN, |p| p.payload / 1e6)]),
            ];
            for (panel, (name, lines)) in panels.iter().zip(series) {
                let caption = format!("{title}: {name}");
                self.panel(panel, &caption, lines).map_err(|error| failed(&error))?;
            }
            root.present().map_err(|error| failed(&error))?;
        }
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        // A drawing is no secret: as readable as any file of its maker.
        let mut file = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory.unwrap_or(Path::new(".")))
            .map_err(|error| failed(&error))?;
        file.write_all(text.as_bytes()).map_err(|error| failed(&error))?;
        file.persist(path).map_err(|error| failed(&error)).map(|_| ())
    }

    fn panel<'a>(
        &self,
        area: &plotters::drawing::DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
        caption: &str,
        lines: &[Line],
    ) -> Result<(), Box<dyn std::error::Error + 'a>> {
        let seconds = self.points.last().map_or(1.0, |point| point.seconds).max(1e-9);
        let values = lines.iter().flat_map(|(_, value)| self.points.iter().map(value));
        let top = values.fold(f64::MIN_POSITIVE, f64::max);
        let mut chart = ChartBuilder::on(area)
            .caption(caption, ("sans-serif", 15).into_font())
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..seconds, 0.0..top * 1.05)?;
        chart.configure_mesh().x_desc("virtual seconds").draw()?;
        for (colour, value) in lines {
            let points = self.points.iter().map(|point| (point.seconds, value(point)));
            chart.draw_series(LineSeries::new(points, *colour))?;
        }
        Ok(())
    }
}

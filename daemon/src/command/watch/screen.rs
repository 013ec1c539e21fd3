//! How it is drawn.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph, Row, Table};
use serde_json::Value;

use super::view::{Sample, View, clock, is_linked};
use crate::log::{escaped, short};

/// The shortest time that the curves span, in seconds.
const SPAN_MIN: f64 = 60.0;
/// Alarms shown at a time.
const ALARMS_MAX: usize = 4;

pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let mut alarms = view.alarms();
    let more = alarms.len().saturating_sub(ALARMS_MAX);
    alarms.truncate(ALARMS_MAX);
    let height = u16::try_from(alarms.len().max(1)).unwrap_or(1);
    let rows = [
        Constraint::Length(2),
        Constraint::Length(height),
        Constraint::Fill(3),
        Constraint::Fill(2),
        Constraint::Length(1),
    ];
    let [head, alarm, curves, bottom, foot] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(Paragraph::new(heading(view)), head);
    frame.render_widget(Paragraph::new(alarm_lines(&alarms, more)), alarm);
    let [left, right] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(curves);
    let loss = points(view, |sample| sample.loss);
    let most = loss.iter().map(|(_, loss)| *loss).fold(0.0, f64::max);
    let top = if most > 0.0 { most * 1.1 } else { 1.0 };
    curve(frame, left, "loss", Color::Yellow, &loss, top, |loss| format!("{loss:.3}"));
    let accuracy = points(view, |sample| sample.accuracy.map(|share| share * 100.0));
    let title = "accuracy, scored by peers";
    curve(frame, right, title, Color::Green, &accuracy, 100.0, |share| format!("{share:.1} %"));
    let [left, right] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Length(38)]).areas(bottom);
    peers(frame, left, view);
    let traffic =
        Paragraph::new(traffic(view)).block(Block::bordered().title(" traffic and merges "));
    frame.render_widget(traffic, right);
    frame.render_widget(Line::from(" q quits").dim(), foot);
}

fn heading(view: &View) -> Vec<Line<'static>> {
    let of = view.number("age_max").map_or_else(String::new, |most| format!(" of {most:.0}"));
    let age = view.number("age").unwrap_or_default();
    let uptime = view.number("uptime_s").unwrap_or_default().max(0.0) as u64;
    let phase = escaped(view.text("phase"));
    vec![
        Line::from(vec![
            " starling ".bold().reversed(),
            Span::from(format!(
                " {}  network {}",
                short(&escaped(view.text("node"))),
                short(&escaped(view.text("network")))
            )),
        ]),
        Line::from(vec![
            Span::from(" "),
            phase.bold(),
            Span::from(format!(
                ", round {}, age {age:.0}{of}, up {}",
                view.whole("round"),
                clock(uptime)
            )),
        ]),
    ]
}

fn alarm_lines(alarms: &[String], more: usize) -> Vec<Line<'static>> {
    if alarms.is_empty() {
        return vec![Line::from(" all is well").green()];
    }
    let mut lines: Vec<Line<'_>> = alarms
        .iter()
        .map(|alarm| Line::from(format!(" ! {}", escaped(alarm))).red().bold())
        .collect();
    if let Some(last) = lines.last_mut().filter(|_| more > 0) {
        last.push_span(Span::from(format!(" (and {more} more)")));
    }
    lines
}

fn points(view: &View, value: impl Fn(&Sample) -> Option<f64>) -> Vec<(f64, f64)> {
    view.samples.iter().filter_map(|sample| Some((sample.seconds, value(sample)?))).collect()
}

/// One curve from zero to `top`, with its last value in the title.
fn curve(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &str,
    colour: Color,
    points: &[(f64, f64)],
    top: f64,
    shown: impl Fn(f64) -> String,
) {
    let last = points.last().map_or_else(|| "not known yet".to_owned(), |(_, value)| shown(*value));
    let end = points.last().map_or(0.0, |(seconds, _)| *seconds);
    let start = points.first().map_or(end, |(seconds, _)| *seconds).min(end - SPAN_MIN);
    let span = clock((end - start) as u64);
    let data = Dataset::default()
        .marker(Marker::Braille)
        .graph_type(GraphType::Line)
        .style(Style::new().fg(colour))
        .data(points);
    let ticks = [0.0, top / 2.0, top].map(|value| shown(value).trim_end_matches(" %").to_owned());
    let chart = Chart::new(vec![data])
        .block(Block::bordered().title(format!(" {title}: {last} ")))
        .x_axis(
            Axis::default()
                .bounds([start, end])
                .labels([format!("{span} ago"), "now".to_owned()])
                .dim(),
        )
        .y_axis(Axis::default().bounds([0.0, top]).labels(ticks).dim());
    frame.render_widget(chart, area);
}

fn peers(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let linked = view.peers.iter().filter(|peer| is_linked(peer)).count();
    let title = format!(" peers: {linked} linked of {} known ", view.peers.len());
    let mut sorted: Vec<&Value> = view.peers.iter().collect();
    sorted.sort_by_key(|peer| !is_linked(peer));
    let rows = sorted.into_iter().map(peer_row);
    let widths = [11, 8, 9, 8, 12].map(Constraint::Length);
    let head = Row::new(["peer", "round", "age", "failures", "state"]).bold();
    let table = Table::new(rows, widths).header(head).block(Block::bordered().title(title));
    frame.render_widget(table, area);
}

fn peer_row(peer: &Value) -> Row<'static> {
    let number = |key: &str| {
        let value = peer.get(key).and_then(Value::as_f64);
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"))
    };
    let is = |key: &str| peer.get(key).and_then(Value::as_bool).unwrap_or_default();
    let (state, style) = if is("banned") {
        ("banned", Style::new().red())
    } else if is("quarantined") {
        ("quarantined", Style::new().yellow())
    } else if is_linked(peer) {
        ("linked", Style::new())
    } else {
        ("away", Style::new().dim())
    };
    let id = short(&escaped(peer.get("id").and_then(Value::as_str).unwrap_or("-")));
    Row::new([id, number("round"), number("age"), number("failures"), state.to_owned()])
        .style(style)
}

fn traffic(view: &View) -> Vec<Line<'static>> {
    let (sent, received) = match view.rates() {
        Some((sent, received)) => (rate(sent), rate(received)),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let mega = |key: &str| view.number(key).unwrap_or_default() / 1e6;
    let spread = view
        .number("consensus")
        .map_or_else(|| "-".to_owned(), |share| format!("{:.1} % of its length", share * 100.0));
    vec![
        Line::from(format!("sent     {sent:>11} {:11.3} MB", mega("sent_bytes"))),
        Line::from(format!("received {received:>11} {:11.3} MB", mega("received_bytes"))),
        Line::from(format!("accepted {:11}", view.whole("accepted"))),
        Line::from(format!("rejected {:11}", view.whole("rejected"))),
        Line::from(format!("failed   {:11}", view.whole("failed"))),
        Line::from(format!("spread   {spread:>11}")),
    ]
}

fn rate(bytes_per_second: f64) -> String {
    match bytes_per_second {
        slow if slow < 1e6 => format!("{:.1} kB/s", slow / 1e3),
        fast => format!("{:.1} MB/s", fast / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::super::view::Answers;
    use super::*;
    use crate::exit::{Code, Failure};

    /// A node that has learnt for a minute.
    fn learning() -> View {
        let mut view = View::default();
        let start = Instant::now();
        for second in 0..60_u32 {
            let progress = f64::from(second) / 60.0;
            let status = json!({
                "node": "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X",
                "network": "n", "phase": "train", "round": second, "age": second * 4,
                "age_max": 1600.0, "loss": 2.0 * (1.0 - progress), "cross_accuracy": progress,
                "consensus": 0.125, "accepted": second, "rejected": 2, "failed": 1,
                "sent_bytes": second * 20_000, "received_bytes": second * 1500, "uptime_s": 3671.5,
                "degraded": false,
            });
            let peers = vec![
                json!({"id": "12D3KooWsomepeerAAAA", "linked": false, "failures": 7}),
                json!({"id": "12D3KooWsomepeerBBBB", "linked": true, "round": 58, "age": 231.4}),
            ];
            let answers = Answers { status, peers };
            view.update(start + Duration::from_secs(1) * second, Ok(answers));
        }
        view
    }

    fn drawn(view: &View, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("memory");
        terminal.draw(|frame| draw(frame, view)).expect("drawn");
        let cells = terminal.backend().buffer().content();
        let row = |row: &[ratatui::buffer::Cell]| row.iter().map(|cell| cell.symbol()).collect();
        cells.chunks(usize::from(width)).map(row).collect()
    }

    #[test]
    fn all_that_matters_is_on_one_screen() {
        let lines = drawn(&learning(), 100, 30);
        let whole = lines.join("\n");
        let expected = [
            "starling  …1Nft9HyQ6X  network n",
            "train, round 59, age 236 of 1600, up 1h 1m 11s",
            "all is well",
            "loss: 0.033",
            "accuracy, scored by peers: 98.3 %",
            "peers: 1 linked of 2 known",
            "sent       20.0 kB/s       1.180 MB",
            "received    1.5 kB/s       0.088 MB",
            "rejected           2",
            "spread   12.5 % of its length",
            "q quits",
        ];
        for text in expected {
            assert!(whole.contains(text), "{text} is not in\n{whole}");
        }
        let row = |id: &str| lines.iter().position(|line| line.contains(id)).expect(id);
        assert!(lines[row("mepeerBBBB")].contains("58       231       -        linked"), "{whole}");
        assert!(lines[row("mepeerAAAA")].contains("-        -         7        away"), "{whole}");
        assert!(row("mepeerBBBB") < row("mepeerAAAA"));
    }

    /// Rows from the top at which a curve's first and last points are, in its half of the screen.
    fn ends(lines: &[String], from: usize, to: usize) -> (usize, usize) {
        let mut found = Vec::new();
        for (row, line) in lines.iter().enumerate() {
            for (column, letter) in line.chars().enumerate().take(to).skip(from) {
                if ('\u{2801}'..='\u{28ff}').contains(&letter) {
                    found.push((column, row));
                }
            }
        }
        found.sort_unstable();
        (found.first().expect("a curve").1, found.last().expect("a curve").1)
    }

    #[test]
    fn loss_falls_and_accuracy_rises() {
        let lines = drawn(&learning(), 100, 30);
        let (loss, accuracy) = (ends(&lines, 0, 50), ends(&lines, 50, 100));
        assert!(loss.1 >= loss.0 + 6, "{loss:?}");
        assert!(accuracy.0 >= accuracy.1 + 6, "{accuracy:?}");
    }

    #[test]
    fn alarms_are_on_top_and_in_red() {
        let mut view = learning();
        let failure = Failure::new(Code::Unavailable, "no daemon answers on X");
        view.update(Instant::now() + Duration::from_secs(60), Err(failure));
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("memory");
        terminal.draw(|frame| draw(frame, &view)).expect("drawn");
        let buffer = terminal.backend().buffer();
        let line: String = (0..80).map(|column| buffer[(column, 2)].symbol()).collect();
        assert!(line.starts_with(" ! NO ANSWER for 0s: no daemon answers on X"), "{line}");
        assert_eq!(buffer[(3, 2)].fg, Color::Red);
        // The last curves stay.
        assert!(drawn(&view, 80, 24).join("\n").contains("loss: 0.033"));
    }

    #[test]
    fn any_size_of_terminal_will_do() {
        for (width, height) in [(1, 1), (10, 3), (40, 10), (80, 24), (300, 100)] {
            assert_eq!(drawn(&learning(), width, height).len(), usize::from(height));
            assert_eq!(drawn(&View::default(), width, height).len(), usize::from(height));
        }
    }

    #[test]
    fn a_terminal_obeys_no_peer() {
        let mut view = learning();
        view.peers = vec![json!({"id": "\u{1b}[2J\u{7}"})];
        let whole = drawn(&view, 100, 30).join("\n");
        assert!(!whole.contains('\u{1b}') && whole.contains("[2J\\u{7}"), "{whole}");
    }
}

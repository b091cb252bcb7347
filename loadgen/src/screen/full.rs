//! The page on a terminal.

use std::collections::VecDeque;
use std::io::{self, Stderr, stderr};

use hdrhistogram::Histogram;
use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Gauge, Paragraph, Row, Sparkline, Table};
use ratatui::{Frame, Terminal};

use super::terminal;
use crate::measure::{Interval, Latency, Progress, Watch, histogram};
use crate::report::host::as_f64;
use crate::report::units::{bytes, count, nanoseconds, si};

/// Intervals that the sparklines remember: more than a terminal is wide.
const REMEMBERED: usize = 400;

/// What is shown.
struct State {
    progress: Progress,
    last: Option<Interval>,
    sent: VecDeque<u64>,
    received: VecDeque<u64>,
    /// Of the measured phase.
    corrected: Histogram<u64>,
    lost: u64,
    failed: u64,
    refused: u64,
    delayed: u64,
}

impl State {
    fn new() -> Self {
        Self {
            progress: Progress::default(),
            last: None,
            sent: VecDeque::new(),
            received: VecDeque::new(),
            corrected: histogram(),
            lost: 0,
            failed: 0,
            refused: 0,
            delayed: 0,
        }
    }

    fn take(&mut self, interval: &Interval, progress: &Progress) {
        let counts = &interval.counts;
        remember(&mut self.sent, counts.published, interval.length_s);
        remember(&mut self.received, counts.received, interval.length_s);
        self.lost += counts.lost;
        self.failed += counts.connect_failed;
        self.refused += counts.refused;
        self.delayed += counts.delayed;
        if interval.at_s >= 0.0 {
            // Both have the same bounds.
            let _ = self.corrected.add(&interval.corrected);
        }
        self.progress = progress.clone();
        self.last = Some(interval.clone());
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is not negative, and what u64 cannot hold is drawn as its maximum"
)]
fn remember(rates: &mut VecDeque<u64>, count: u64, seconds: f64) {
    if rates.len() == REMEMBERED {
        rates.pop_front();
    }
    rates.push_back((as_f64(count) / seconds.max(1e-9)).round() as u64);
}

/// The page and the terminal that it is on.
pub(super) struct Page<B: Backend> {
    state: State,
    /// `None` once it was given back.
    terminal: Option<Terminal<B>>,
}

impl Page<CrosstermBackend<Stderr>> {
    /// Takes the terminal.
    pub(super) fn on_terminal() -> io::Result<Self> {
        let terminal = Terminal::new(CrosstermBackend::new(stderr()))?;
        terminal::enter()?;
        Ok(Self {
            state: State::new(),
            terminal: Some(terminal),
        })
    }
}

impl<B: Backend> Page<B> {
    fn give_back(&mut self) {
        if self.terminal.take().is_some() {
            terminal::leave();
        }
    }
}

impl<B: Backend> Watch for Page<B> {
    fn interval(&mut self, interval: &Interval, so_far: &Progress) {
        self.state.take(interval, so_far);
        if crate::engine::interrupted() {
            // The engine is ending the run; a second Ctrl-C would not let us.
            self.give_back();
        }
        let drawn = match &mut self.terminal {
            Some(terminal) => terminal.draw(|frame| draw(frame, &self.state)).is_ok(),
            None => return,
        };
        if !drawn {
            self.give_back();
        }
    }

    fn finished(&mut self) {
        self.give_back();
    }
}

impl<B: Backend> Drop for Page<B> {
    fn drop(&mut self) {
        self.give_back();
    }
}

fn draw(frame: &mut Frame<'_>, state: &State) {
    let [head, gauge, rates, latency, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(6),
        Constraint::Length(9),
        Constraint::Length(5),
    ])
    .areas(frame.area());
    title(frame, head, state);
    progress(frame, gauge, state);
    let [received, sent] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(rates);
    sparkline(frame, received, "received", &state.received, Color::Cyan);
    sparkline(frame, sent, "sent", &state.sent, Color::Blue);
    percentiles(frame, latency, state);
    facts(frame, foot, state);
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn title(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let phase = match &state.last {
        Some(interval) if interval.at_s < 0.0 => "ramp and warm-up",
        Some(_) => "measuring",
        None => "starting",
    };
    let line = Line::from(vec![
        Span::styled(format!(" {} ", state.progress.name), bold()),
        Span::raw(format!("· {phase} · Ctrl-C ends the run")),
    ]);
    frame.render_widget(Paragraph::new(line), area);
}

fn progress(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let at = state
        .last
        .as_ref()
        .map_or(0.0, |interval| interval.at_s + interval.length_s);
    let (share, label) = match state.progress.planned_s {
        Some(planned) if planned > 0.0 => (
            (at / planned).clamp(0.0, 1.0),
            format!("{at:.0} of {planned:.0} s"),
        ),
        _ => (0.0, format!("{:.0} s", state.progress.elapsed_s)),
    };
    let gauge = Gauge::default()
        .gauge_style(Style::new().fg(Color::Green).bg(Color::DarkGray))
        .ratio(share)
        .label(label);
    frame.render_widget(gauge, area);
}

fn sparkline(frame: &mut Frame<'_>, area: Rect, name: &str, rates: &VecDeque<u64>, colour: Color) {
    let now = rates.back().copied().unwrap_or(0);
    let top = rates.iter().copied().max().unwrap_or(0);
    let block = Block::default()
        .borders(Borders::ALL)
        .title(Line::from(vec![
            Span::raw(format!(" {name} ")),
            Span::styled(format!("{}/s ", si(as_f64(now))), bold()),
        ]))
        .title(Line::from(format!(" max {}/s ", si(as_f64(top)))).alignment(Alignment::Right));
    let room = usize::from(area.width.saturating_sub(2));
    let shown: Vec<u64> = rates
        .iter()
        .skip(rates.len().saturating_sub(room))
        .copied()
        .collect();
    let line = Sparkline::default()
        .block(block)
        .data(shown)
        .style(Style::new().fg(colour));
    frame.render_widget(line, area);
}

fn percentiles(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let mut rows = Vec::new();
    if let Some(interval) = &state.last {
        for (name, latency) in [
            ("end to end, corrected", Latency::of(&interval.corrected)),
            ("end to end, raw", Latency::of(&interval.raw)),
            ("acknowledged", Latency::of(&interval.acknowledgement)),
            ("connect", Latency::of(&interval.connect)),
            ("schedule lag", Latency::of(&interval.lag)),
            ("corrected, whole run", Latency::of(&state.corrected)),
        ] {
            rows.push(percentile_row(name, &latency));
        }
    }
    let widths = [
        Constraint::Min(21),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(10),
    ];
    let header = ["", "p50", "p90", "p99", "p99.9", "max"].map(right);
    let table = Table::new(rows, widths)
        .header(Row::new(header).style(bold()))
        .block(
            Block::default()
                .borders(Borders::ALL)
                .title(" latency in the last interval "),
        );
    frame.render_widget(table, area);
}

fn right(text: &str) -> Line<'static> {
    Line::from(text.to_owned()).alignment(Alignment::Right)
}

fn percentile_row(name: &str, latency: &Latency) -> Row<'static> {
    let mut cells = vec![Line::from(name.to_owned())];
    for value in [
        latency.p50,
        latency.p90,
        latency.p99,
        latency.p999,
        latency.max,
    ] {
        cells.push(if latency.count == 0 {
            right("–")
        } else {
            right(&nanoseconds(as_f64(value)))
        });
    }
    Row::new(cells)
}

fn facts(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let Some(interval) = &state.last else {
        return;
    };
    let counts = &interval.counts;
    let alarm = |value: u64| {
        if value > 0 {
            Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)
        } else {
            Style::new()
        }
    };
    let counted =
        |name: &str, value: u64| Span::styled(format!("{name} {}   ", count(value)), alarm(value));
    let connections = Line::from(vec![
        Span::styled(format!(" open {}   ", count(counts.open)), bold()),
        counted("failed", state.failed),
        counted("lost", state.lost),
    ]);
    let messages = Line::from(vec![
        counted(" refused", state.refused),
        counted("sent late", state.delayed),
    ]);
    let mut cpu = format!(" CPU: generator {:.2} cores", interval.generator_cpu);
    if let Some(cores) = interval.broker_cpu {
        cpu += &format!("   broker {cores:.2} cores");
    }
    if let Some(resident) = interval.broker_rss {
        cpu += &format!("   broker memory {}", bytes(as_f64(resident)));
    }
    let block = Block::default().borders(Borders::ALL).title(" counts ");
    let lines = vec![connections, messages, Line::from(cpu)];
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;
    use ratatui::backend::TestBackend;

    fn page(width: u16, height: u16) -> Page<TestBackend> {
        let mut page = Page {
            state: State::new(),
            terminal: Some(Terminal::new(TestBackend::new(width, height)).unwrap()),
        };
        let outcome = samples::failed();
        for (interval, second) in outcome.intervals.iter().zip(1_u32..) {
            let progress = Progress {
                name: "paced-2000".to_owned(),
                elapsed_s: f64::from(second),
                planned_s: Some(20.0),
            };
            page.interval(interval, &progress);
        }
        page
    }

    fn text(page: &Page<TestBackend>) -> String {
        let buffer = page.terminal.as_ref().unwrap().backend().buffer();
        buffer
            .content()
            .chunks(usize::from(buffer.area.width))
            .map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n")
            .collect()
    }

    #[test]
    fn everything_is_on_the_page() {
        let text = text(&page(100, 30));
        for part in [
            "paced-2000 · measuring",
            "10 of 20 s",
            "received 20.0 k/s",
            "max 20.0 k/s",
            "end to end, corrected",
            "corrected, whole run",
            "36.2 ms",
            "open 2,000",
            "sent late 6,000",
            "generator 0.36 cores",
            "broker 0.06 cores",
            "broker memory 8,789 KiB",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        // The dip of the stall is not full.
        assert!(
            text.contains("█") && text.contains(['▁', '▂', '▃', '▄', '▅', '▆', '▇']),
            "{text}"
        );
    }

    #[test]
    fn a_small_terminal_is_no_reason_to_fail() {
        for (width, height) in [(80, 24), (40, 10), (1, 1)] {
            let mut page = page(width, height);
            page.finished();
            assert!(page.terminal.is_none());
        }
    }
}

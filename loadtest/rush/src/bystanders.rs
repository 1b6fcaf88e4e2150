//! What a normal load feels beside clients that want no good: thousands that are idle or dribble, and a flood of joins.
//!
//! The normal load is paced, so that what it gets and how long it waits can be told apart. The others run on a thread of their own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, sleep_until};

use crate::connection::Connection;
use crate::scenario::{Done, People, Scenario, Stock};
use crate::stack::Stack;
use crate::table::{Table, figure};
use crate::{Failure, machine, prepare, print, progress};

/// People who wait while others poll.
const WAITING: usize = 500;
/// Connections of the normal load.
const POLLING: u32 = 64;
/// Connections of a flood.
const FLOODING: u32 = 256;
/// The pause between two letters of one that dribbles.
const DRIBBLE: Duration = Duration::from_secs(2);
/// The longest latency that is told from others, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;

/// What a paced load got.
struct Paced {
    latency: Histogram<u64>,
    statuses: BTreeMap<u16, u64>,
    elapsed: Duration,
}

impl Paced {
    fn rate(&self, count: u64) -> String {
        figure(count as f64 / self.elapsed.as_secs_f64())
    }

    fn ms(&self, quantile: f64) -> String {
        figure(self.latency.value_at_quantile(quantile) as f64 / 1e6)
    }

    fn others(&self) -> String {
        let told: Vec<_> =
            self.statuses.iter().map(|(status, count)| format!("{}×{status}", self.rate(*count))).collect();
        if told.is_empty() { "–".to_owned() } else { told.join(" ") }
    }
}

/// So many units a second, whatever becomes of them. Waiting counts from the moment at which a unit was due.
async fn paced(
    scenario: Scenario,
    address: SocketAddr,
    connections: u32,
    per_second: f64,
    time: Duration,
) -> Result<Paced, Failure> {
    let scenario = Rc::new(scenario);
    let latency = Histogram::new_with_max(LONGEST_NS, 2)?;
    let got = Rc::new(RefCell::new((latency, BTreeMap::new())));
    let gap = Duration::from_secs_f64(f64::from(connections) / per_second);
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(Connection::open(address).await?);
    }
    let began = Instant::now();
    let local = LocalSet::new();
    for (at, mut connection) in (0_u32..).zip(opened) {
        let (scenario, got) = (scenario.clone(), got.clone());
        local.spawn_local(async move {
            let mut due = began + gap * at / connections;
            while due < began + time {
                let early = Instant::now() <= due;
                sleep_until(due).await;
                // The timer's own grain of a millisecond is not the service's.
                let since = if early { Instant::now() } else { due };
                let done = scenario.unit(&mut connection).await;
                match done {
                    Ok(Done::Well) => {
                        let took = u64::try_from(since.elapsed().as_nanos()).unwrap_or(LONGEST_NS);
                        got.borrow_mut().0.saturating_record(took);
                    }
                    Ok(Done::Status(status)) => *got.borrow_mut().1.entry(status).or_default() += 1,
                    Ok(Done::Nothing) => return,
                    Err(_) => {
                        *got.borrow_mut().1.entry(0).or_default() += 1;
                        if connection.reopen().await.is_err() {
                            return;
                        }
                    }
                }
                due += gap;
            }
        });
    }
    local.await;
    let (latency, statuses) = Rc::into_inner(got).ok_or("a worker outlived its run")?.into_inner();
    Ok(Paced { latency, statuses, elapsed: began.elapsed() })
}

/// Runs something else on a thread of its own until told to stop.
fn beside<F>(work: impl FnOnce(watch::Receiver<bool>) -> F + Send + 'static) -> Beside
where
    F: Future<Output = Result<String, String>>,
{
    let (stop, stopped) = watch::channel(false);
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        LocalSet::new().block_on(&runtime, work(stopped))
    });
    Beside { stop, thread }
}

struct Beside {
    stop: watch::Sender<bool>,
    thread: std::thread::JoinHandle<Result<String, String>>,
}

impl Beside {
    fn end(self) -> Result<String, Failure> {
        self.stop.send_replace(true);
        Ok(self.thread.join().map_err(|_| "the thread beside panicked")??)
    }
}

async fn polls(stack: &Stack, queue: &str) -> Result<Scenario, Failure> {
    prepare::paused_queue(&stack.target, queue).await?;
    let tokens = Stock::new(prepare::joined(&stack.target, queue, WAITING).await?);
    Ok(Scenario::Poll { path: format!("/v1/queues/{queue}/tokens/me"), tokens })
}

/// A connection that says nothing, or the next letter of a header now and then, and comes again when it is closed. It begins after `delay`, as no two strangers
/// keep time.
async fn dribbles(
    address: SocketAddr,
    every: Option<Duration>,
    delay: Duration,
    mut stop: watch::Receiver<bool>,
) -> u64 {
    let mut closed = 0;
    let standing = async {
        sleep(delay).await;
        loop {
            let Ok(mut stream) = TcpStream::connect(address).await else {
                sleep(Duration::from_millis(500)).await;
                continue;
            };
            if let Some(every) = every {
                let mut broken = stream.write_all(b"GET /healthz HTTP/1.1\r\nx: ").await.is_err();
                while !broken {
                    sleep(every).await;
                    broken = stream.write_all(b"x").await.is_err();
                }
            } else {
                let mut end = [0];
                let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut end).await;
            }
            closed += 1;
        }
    };
    tokio::select! {
        () = standing => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    closed
}

/// The normal load alone, beside idle and dribbling connections, and alone again.
pub(crate) async fn run(count: usize, per_second: f64, time: Duration) -> Result<(), Failure> {
    if usher::http::descriptors::room_for(count + 500) < count + 500 {
        return Err(format!("the limit of open files leaves no room for {count} connections").into());
    }
    let stack = Stack::start(None).await?;
    let measured = measure(&stack, count, per_second, time).await;
    stack.stop().await?;
    measured
}

async fn measure(stack: &Stack, count: usize, per_second: f64, time: Duration) -> Result<(), Failure> {
    let address = stack.target.public;
    print(&format!("{}\n\n", machine::describe()))?;
    let heads =
        ["beside", "polls/s asked", "polls/s", "p50 ms", "p99 ms", "failed/s", "closed by the service"];
    let mut table = Table::new(&heads);
    for (at, bystanders) in [0, count, 0, count, 0].into_iter().enumerate() {
        let scenario = polls(stack, &format!("polls-{at}")).await?;
        let crowd = beside(move |stop| async move {
            let each = (0..bystanders).map(|at| {
                let every = (at % 2 == 0).then_some(DRIBBLE);
                let delay = DRIBBLE.mul_f64(at as f64 / bystanders as f64);
                spawn_local(dribbles(address, every, delay, stop.clone()))
            });
            let mut closed = 0;
            for one in each.collect::<Vec<_>>() {
                closed += one.await.map_err(|error| error.to_string())?;
            }
            Ok(closed.to_string())
        });
        // Until they stand.
        sleep(Duration::from_secs(if bystanders > 0 { 5 } else { 1 })).await;
        progress(&format!("{per_second} polls a second beside {bystanders} connections"));
        let got = paced(scenario, address, POLLING, per_second, time).await?;
        let closed = crowd.end()?;
        let row = [
            format!("{bystanders} connections, half idle, half dribbling"),
            figure(per_second),
            got.rate(got.latency.len()),
            got.ms(0.5),
            got.ms(0.99),
            got.others(),
            closed,
        ];
        table.row(row.to_vec());
    }
    print(&table.render())
}

/// The normal load alone and beside joins of ten times what the service is told to take.
pub(crate) async fn flood(capacity: u32, per_second: f64, time: Duration) -> Result<(), Failure> {
    let settings = [("USHER_LIMIT_GLOBAL_JOINS_PER_SECOND", capacity.to_string())];
    let stack = Stack::start_with(None, &settings).await?;
    let measured = measure_flood(&stack, capacity, per_second, time).await;
    stack.stop().await?;
    measured
}

async fn measure_flood(stack: &Stack, capacity: u32, per_second: f64, time: Duration) -> Result<(), Failure> {
    let address = stack.target.public;
    print(&format!("{}\n\n", machine::describe()))?;
    let heads =
        ["beside", "polls/s asked", "polls/s", "p50 ms", "p99 ms", "failed/s", "joins: answers a second"];
    let mut table = Table::new(&heads);
    for (at, times) in [0, 10, 0, 10, 0].into_iter().enumerate() {
        let scenario = polls(stack, &format!("polls-{at}")).await?;
        let queue = format!("flood-{at}");
        prepare::paused_queue(&stack.target, &queue).await?;
        sleep(Duration::from_secs(1)).await;
        let asked = f64::from(times * capacity);
        let crowd = beside(move |_| async move {
            if times == 0 {
                return Ok("–".to_owned());
            }
            let joins = Scenario::Join { path: format!("/v1/queues/{queue}/tokens"), people: People::new() };
            let got =
                paced(joins, address, FLOODING, asked, time).await.map_err(|error| error.to_string())?;
            Ok(format!("{}×201 {}", got.rate(got.latency.len()), got.others()))
        });
        progress(&format!("{per_second} polls a second beside {asked} joins"));
        let got = paced(scenario, address, POLLING, per_second, time).await?;
        let joins = crowd.end()?;
        let row = [
            format!("{asked} joins a second, {capacity} of them taken"),
            figure(per_second),
            got.rate(got.latency.len()),
            got.ms(0.5),
            got.ms(0.99),
            got.others(),
            joins,
        ];
        table.row(row.to_vec());
    }
    print(&table.render())
}

//! A cluster of processes under load, with deaths, and a check of everything that clients saw.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::Signal;
use tokio::time::sleep;
use vsr::handle::ReplicaStatus;
use vsr::protocol::{Monotonic, Random, View};
use vsr::{Client, Clock, ClusterId, ReplicaId, SystemClock};
use vsr_sim::Step;
use vsr_sim::check::linearizability::{Asked, Call, Heard, HistoryOf, check_history};

use crate::processes::{Processes, prepare};
use crate::serve::{connect, connect_to};
use crate::{App, ClusterConfig, Error, StorageKind};

/// What is done to the primary in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Harm {
    /// SIGKILL, and a restart later.
    Kill,
    /// SIGSTOP, and SIGCONT later.
    Pause,
    /// Nothing: then no view may change.
    None,
}

/// What a demo does.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoOptions {
    /// Where the replicas keep their logs.
    #[arg(long, value_enum, default_value = "file")]
    pub storage: StorageKind,
    /// A folder for the cluster; it is kept. A temporary one if left out.
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// Seconds of load before and after the harm, each.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Clients, each with one connection to every replica and a session of its own.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub clients: u64,
    /// Requests in flight for each client.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub depth: u64,
    /// What is done to the primary.
    #[arg(long, value_enum, default_value = "kill")]
    pub harm: Harm,
}

/// What a demo or soak found.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Commands that were answered.
    pub acknowledged: u64,
    /// Commands in the state at the end.
    pub counted: u64,
    /// From the harm to the first reply of a later view, in milliseconds; one for each harm.
    pub failovers_ms: Vec<f64>,
    /// What was wrong.
    pub wrong: Vec<String>,
}

impl Summary {
    /// Whether everything was right.
    #[must_use]
    pub fn is_pass(&self) -> bool {
        self.wrong.is_empty()
    }

    /// The line for programs.
    #[must_use]
    pub fn line(&self) -> String {
        let mut sorted = self.failovers_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let failover = sorted.get(sorted.len() / 2).map_or("none".to_owned(), |median| format!("{median:.1}"));
        let verdict = if self.is_pass() { "pass" } else { "fail" };
        let Summary { acknowledged, counted, .. } = self;
        format!("acknowledged={acknowledged} counted={counted} failover_ms={failover} verdict={verdict}")
    }
}

/// What the clients of a load share.
struct Load<A: App> {
    clock: SystemClock,
    stop: AtomicBool,
    acknowledged: AtomicU64,
    /// The newest view that a reply came from.
    view: Mutex<View>,
    /// Set by a harm: the view at that time. The first later reply notes when it came.
    awaited: Mutex<Option<(View, Monotonic)>>,
    failovers: Mutex<Vec<f64>>,
    history: Mutex<HistoryOf<A::Machine>>,
    errors: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<A: App> Load<A> {
    fn new() -> Arc<Load<A>> {
        Arc::new(Load {
            clock: SystemClock::new(),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            view: Mutex::default(),
            awaited: Mutex::default(),
            failovers: Mutex::default(),
            history: Mutex::default(),
            errors: Mutex::default(),
        })
    }

    /// From here on a reply of a view after this one ends the failover.
    fn harm(&self, view: View) {
        *lock(&self.awaited) = Some((view, self.clock.now()));
    }

    fn view(&self) -> View {
        *lock(&self.view)
    }

    fn is_failed_over(&self) -> bool {
        lock(&self.awaited).is_none()
    }

    fn answered(&self, view: View, now: Monotonic) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        let mut newest = lock(&self.view);
        *newest = view.max(*newest);
        drop(newest);
        let mut awaited = lock(&self.awaited);
        if let Some((before, since)) = *awaited
            && view > before
        {
            *awaited = None;
            lock(&self.failovers).push(now.since(since).as_secs_f64() * 1e3);
        }
    }

    /// One request after the other, until the load is stopped. None is given up.
    async fn run(self: Arc<Load<A>>, client: Client<A::Machine>, number: u64, mut random: Random) {
        while !self.stop.load(Ordering::Relaxed) {
            let invoked = self.clock.now().0;
            let (asked, heard) = match A::step(&mut random) {
                Step::Command(command) => {
                    let heard = match client.submit_positioned(command.clone()).await {
                        Ok(reply) => {
                            self.answered(client.view(), self.clock.now());
                            Heard::Reply(reply.value, reply.position)
                        }
                        Err(error) => {
                            lock(&self.errors).push(format!("client {number}: {error}"));
                            Heard::Unknown
                        }
                    };
                    (Asked::Command(command), heard)
                }
                Step::Query(query) => {
                    let answer = client.query_within(query.clone(), Duration::from_secs(60)).await;
                    let heard = answer.map_or(Heard::Unknown, |answer| Heard::Answer(answer.value, answer.position));
                    (Asked::Query(query), heard)
                }
            };
            let returned = self.clock.now().0;
            lock(&self.history).push(Call { client: number, invoked, returned, asked, heard });
        }
    }
}

/// A running cluster with load on it.
struct Stage<A: App> {
    config: ClusterConfig,
    processes: Processes,
    observer: Client<A::Machine>,
    load: Arc<Load<A>>,
    clients: Vec<tokio::task::JoinHandle<()>>,
    display: ProgressBar,
    wrong: Vec<String>,
    _temporary: Option<tempfile::TempDir>,
}

const PATIENCE: Duration = Duration::from_secs(60);

impl<A: App> Stage<A> {
    async fn start(options: &DemoOptions) -> Result<Stage<A>, Error> {
        let temporary = match &options.folder {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("vsr-demo").tempdir()?),
        };
        let folder = options.folder.clone().or(temporary.as_ref().map(|folder| folder.path().to_owned()));
        let folder = folder.ok_or("no folder")?;
        let mut random = Random::new(vsr::ClientConfig::new(1).seed);
        let cluster = ClusterConfig {
            cluster: ClusterId(random.next_u64().into()),
            replicas: vec![String::new(); 3],
            folder: PathBuf::new(),
            storage: options.storage,
            log_limit: None,
            // So that replicas which come back start from one.
            checkpoint_ops: Some(1000),
            metrics: Vec::new(),
            allow_insecure: false,
        };
        let path = prepare(&folder, cluster, &mut random)?;
        let config = ClusterConfig::read(&path)?;
        let mut processes = Processes::new(&path, &folder, config.replicas.len());
        for id in 0..config.replicas.len() {
            processes.start(id).await?;
        }
        let observer = connect::<A>(&config).await?;
        let display = ProgressBar::new_spinner();
        display.set_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}")?);
        let (load, clients, wrong) = (Load::new(), Vec::new(), Vec::new());
        let mut stage = Stage { config, processes, observer, load, clients, display, wrong, _temporary: temporary };
        stage.say(format!(
            "three replicas run on {}; their files are in {}",
            stage.config.replicas.join(", "),
            folder.display()
        ));
        for number in 0..options.clients {
            let client = connect::<A>(&stage.config).await?;
            for lane in 0..options.depth {
                let random = Random::new(random.next_u64());
                let run = stage.load.clone().run(client.clone(), number << 8 | lane, random);
                stage.clients.push(tokio::spawn(run));
            }
        }
        stage.until("the first replies", |load| load.acknowledged.load(Ordering::Relaxed) > 0).await?;
        Ok(stage)
    }

    fn say(&self, line: impl AsRef<str>) {
        if self.display.is_hidden() {
            // A reader that has gone is no reason to stop.
            let _ = writeln!(std::io::stdout(), "{}", line.as_ref());
        } else {
            self.display.println(line);
        }
    }

    /// Lets the load run, with a line that shows it.
    async fn load_for(&self, time: Duration) {
        let clock = &self.load.clock;
        let end = clock.now().after(time);
        let mut before = (clock.now(), self.load.acknowledged.load(Ordering::Relaxed));
        while clock.now() < end {
            sleep(Duration::from_millis(250).min(time)).await;
            let (now, count) = (clock.now(), self.load.acknowledged.load(Ordering::Relaxed));
            let rate = (count - before.1) as f64 / now.since(before.0).as_secs_f64();
            before = (now, count);
            let view = self.load.view();
            self.display.set_message(format!("{count} acknowledged, {rate:.0} a second, view {view}"));
            self.display.tick();
        }
    }

    async fn until(&self, what: &str, reached: impl Fn(&Load<A>) -> bool) -> Result<(), Error> {
        let deadline = self.load.clock.now().after(PATIENCE);
        while !reached(&self.load) {
            if self.load.clock.now() > deadline {
                return Err(format!("waited {PATIENCE:?} for {what}: {}", self.explain().await).into());
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    async fn status(&self, id: usize) -> Option<(ReplicaStatus, String)> {
        self.observer.status(ReplicaId(id as u8), Duration::from_secs(1)).await
    }

    async fn explain(&self) -> String {
        let mut lines = Vec::new();
        for id in 0..self.config.replicas.len() {
            let line = self.status(id).await.map_or("does not answer".to_owned(), |(_, explain)| explain);
            lines.push(format!("replica {id}: {line}"));
        }
        lines.join("; ")
    }

    /// The primary that has started the newest view.
    async fn primary(&self) -> Result<(usize, View), Error> {
        let deadline = self.load.clock.now().after(PATIENCE);
        loop {
            let mut newest: Option<(usize, View)> = None;
            for id in 0..self.config.replicas.len() {
                if let Some((status, _)) = self.status(id).await
                    && status.is_primary
                    && newest.is_none_or(|(_, view)| status.view > view)
                {
                    newest = Some((id, status.view));
                }
            }
            if let Some(found) = newest {
                return Ok(found);
            }
            if self.load.clock.now() > deadline {
                return Err(format!("no primary: {}", self.explain().await).into());
            }
        }
    }

    /// Waits until a replica has applied what the others know to be committed.
    async fn caught_up(&self, id: usize) -> Result<(), Error> {
        let (primary, _) = self.primary().await?;
        let commit = self.status(primary).await.map_or(0, |(status, _)| status.commit.0);
        let deadline = self.load.clock.now().after(PATIENCE);
        loop {
            if self.status(id).await.is_some_and(|(status, _)| status.normal && status.applied.0 >= commit) {
                return Ok(());
            }
            if self.load.clock.now() > deadline {
                return Err(format!("replica {id} does not catch up: {}", self.explain().await).into());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the load, and compares everything with everything.
    async fn finish(mut self) -> Result<Summary, Error> {
        self.load.stop.store(true, Ordering::Relaxed);
        for client in std::mem::take(&mut self.clients) {
            tokio::time::timeout(PATIENCE, client)
                .await
                .map_err(|_| "a request was not answered".to_owned())?
                .map_err(|error| format!("a client: {error}"))?;
        }
        let acknowledged = self.load.acknowledged.load(Ordering::Relaxed);
        let mut counts = Vec::new();
        for id in 0..self.config.replicas.len() {
            // Each answers from its own state, once that contains everything acknowledged.
            let client = connect_to::<A>(&self.config, vec![ReplicaId(id as u8)]).await?;
            let answer = client.query_within(A::count_query(), PATIENCE).await;
            let answer = answer.map_err(|error| format!("replica {id}: {error}"))?;
            counts.push(A::count(&answer.value));
            client.close();
        }
        let counted = counts[0];
        if counts.iter().any(|count| *count != counted) {
            self.wrong.push(format!("the replicas disagree: {counts:?}"));
        }
        if counted != acknowledged {
            self.wrong.push(format!("{acknowledged} commands were acknowledged, {counted} are in the state"));
        }
        self.wrong.append(&mut lock(&self.load.errors));
        let history = std::mem::take(&mut *lock(&self.load.history));
        match check_history(&history, A::Machine::default()) {
            Ok(()) => self.say(format!("the history of {} operations is linearizable", history.len())),
            Err(error) => self.wrong.push(format!("the history is not linearizable: {error}")),
        }
        self.processes.stop_all().await?;
        self.display.finish_and_clear();
        let failovers_ms = std::mem::take(&mut *lock(&self.load.failovers));
        Ok(Summary { acknowledged, counted, failovers_ms, wrong: std::mem::take(&mut self.wrong) })
    }
}

/// Load, the death (or sleep) of the primary, and its return.
pub(crate) async fn demo<A: App>(options: &DemoOptions) -> Result<Summary, Error> {
    let mut stage = Stage::<A>::start(options).await?;
    let half = Duration::from_secs(options.seconds);
    stage.load_for(half).await;
    let (primary, view) = stage.primary().await?;
    match options.harm {
        Harm::None => {
            stage.load_for(half).await;
            let (_, after) = stage.primary().await?;
            if after != view || view != View::default() {
                stage.wrong.push(format!("without any fault the view changed to {after}"));
            }
            stage.say("no fault, and no view change");
        }
        Harm::Kill => {
            stage.load.harm(view);
            stage.processes.kill(primary)?;
            stage.until("a reply of a later view", Load::is_failed_over).await?;
            stage.processes.reap(primary).await?;
            stage.report_failover(&format!("primary {primary} of view {view} was killed (SIGKILL)"));
            stage.load_for(half).await;
            stage.processes.start(primary).await?;
            stage.caught_up(primary).await?;
            stage.say(format!("replica {primary} was restarted and has caught up"));
            stage.load_for(half / 3).await;
        }
        Harm::Pause => {
            stage.load.harm(view);
            stage.processes.signal(primary, Signal::STOP)?;
            stage.until("a reply of a later view", Load::is_failed_over).await?;
            stage.report_failover(&format!("primary {primary} of view {view} was paused (SIGSTOP)"));
            stage.load_for(half).await;
            stage.processes.signal(primary, Signal::CONT)?;
            stage.caught_up(primary).await?;
            stage.say(format!("replica {primary} goes on and has caught up"));
        }
    }
    stage.finish().await
}

impl<A: App> Stage<A> {
    fn report_failover(&self, what: &str) {
        let last = lock(&self.load.failovers).last().copied().unwrap_or_default();
        self.say(format!("{what}; view {} answered after {last:.1} ms", self.load.view()));
    }
}

/// Rounds of deaths of random replicas under load, sometimes two in a row.
pub(crate) async fn soak<A: App>(options: &DemoOptions, rounds: u64) -> Result<Summary, Error> {
    let mut stage = Stage::<A>::start(options).await?;
    let mut random = Random::new(vsr::ClientConfig::new(1).seed);
    for round in 1..=rounds {
        stage.load_for(Duration::from_millis(100 + random.below(300))).await;
        let replicas = stage.config.replicas.len();
        let first = random.below(replicas as u64) as usize;
        // A second one may follow before the first is back: then nothing is answered for a moment.
        let mut victims = vec![first];
        if random.below(4) == 0 {
            victims.push((first + 1 + random.below(replicas as u64 - 1) as usize) % replicas);
        }
        let before = stage.load.acknowledged.load(Ordering::Relaxed);
        for &victim in &victims {
            stage.processes.kill(victim)?;
            stage.processes.reap(victim).await?;
            sleep(Duration::from_millis(random.below(60))).await;
        }
        for &victim in &victims {
            stage.processes.start(victim).await?;
        }
        for &victim in &victims {
            stage.caught_up(victim).await?;
        }
        let target = before + 1;
        stage.until("an acknowledgement", |load| load.acknowledged.load(Ordering::Relaxed) > target).await?;
        let count = stage.load.acknowledged.load(Ordering::Relaxed);
        let (primary, view) = stage.primary().await?;
        stage.say(format!(
            "round {round}: killed {victims:?}; {count} acknowledged so far, view {view}, primary {primary}"
        ));
    }
    stage.finish().await
}

//! Queues and batches over a backend that runs when the test says so, and behind every protocol.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use infer::config::{Batching, Mode, Queueing};
use infer::evaluate::{Call, run};
use infer::{Personality, Reason, Refusal, Served};
use models::{Backend, BackendError, Batch, DType, Dims, Outputs, Shape, Signature, Tensor, TensorSpec};
use parking_lot::{Condvar, Mutex};

/// What the backend has seen, and how many batches it may still finish.
#[derive(Default)]
struct Seen {
    batches: Vec<Vec<f64>>,
    shapes: Vec<Vec<usize>>,
    permits: usize,
}

#[derive(Default)]
struct Gate(Mutex<Seen>, Condvar);

impl Gate {
    /// Lets so many more batches finish.
    fn open(&self, batches: usize) {
        self.0.lock().permits += batches;
        self.1.notify_all();
    }

    /// Waits until so many batches have begun.
    fn begun(&self, batches: usize) {
        let mut seen = self.0.lock();
        while seen.batches.len() < batches {
            let late = self.1.wait_for(&mut seen, Duration::from_secs(60)).timed_out();
            assert!(!late, "{batches} batches begin, {} did", seen.batches.len());
        }
    }

    fn batches(&self) -> Vec<Vec<f64>> {
        self.0.lock().batches.clone()
    }
}

/// Doubles numbers; refuses batches with a negative one; each row costs a second, as far as the server knows.
struct Doubles {
    gate: Arc<Gate>,
    signature: Signature,
    keeps_rows_apart: bool,
}

impl Backend for Doubles {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn row_cost_ns(&self) -> u64 {
        1_000_000_000
    }

    fn keeps_rows_apart(&self) -> bool {
        self.keeps_rows_apart
    }

    fn run(&self, batch: &Batch<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        let numbers = batch.inputs[0].slice::<f64>().expect("aligned numbers");
        let mut seen = self.gate.0.lock();
        seen.batches.push(numbers.to_vec());
        seen.shapes.push(batch.inputs[0].dims().to_vec());
        self.gate.1.notify_all();
        while seen.permits == 0 {
            self.gate.1.wait(&mut seen);
        }
        seen.permits -= 1;
        drop(seen);
        if numbers.contains(&-7.0) {
            panic!("seven");
        }
        if numbers.iter().any(|number| *number < 0.0) {
            return Err(BackendError::Input("a negative number".into()));
        }
        let shape = Shape::new(batch.inputs[0].dims()).expect("a shape");
        outputs.numbers::<f64>(shape).iter_mut().zip(numbers).for_each(|(out, number)| *out = 2.0 * number);
        let texts: Vec<String> =
            numbers.iter().step_by(shape.count() / batch.rows).map(f64::to_string).collect();
        outputs.texts(Shape::new(&[batch.rows]).expect("a shape"), texts.iter().map(String::as_str));
        Ok(())
    }
}

fn model(mode: Mode) -> (Arc<Served>, Arc<Gate>) {
    model_whose_rows(true, mode)
}

fn model_whose_rows(keeps_rows_apart: bool, mode: Mode) -> (Arc<Served>, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let spec = |name: &str, dtype| TensorSpec { name: name.into(), dtype, row: vec![None], dims: Dims::Rows };
    let signature = Signature {
        inputs: vec![spec("x", DType::F64)],
        outputs: vec![spec("y", DType::F64), spec("t", DType::Text)],
        columns: Vec::new(),
    };
    let backend = Box::new(Doubles { gate: gate.clone(), signature, keeps_rows_apart });
    let mut served = Served::new("m".into(), None, Personality::Kserve, backend);
    served.queue_by(&Queueing { mode, ..Queueing::default() });
    (Arc::new(served), gate)
}

/// One thread, so that the order of batches is the queue's.
fn fixed() -> Batching {
    Batching { rows_max: 4, threads: 1, queued_batches_max: 4, ..Batching::default() }
}

type Answer = Result<(Vec<f64>, Vec<String>), Refusal>;

/// Asks for rows of some width.
async fn ask(served: &Arc<Served>, rows: usize, numbers: &[f64], timeout: Option<Duration>) -> Answer {
    let tensor = Tensor::borrowed(numbers, &[rows, numbers.len() / rows]).expect("numbers");
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut outputs = Outputs::new();
    run(Call { served, rows, inputs: &[tensor], priority: 0, deadline }, &mut outputs).await?;
    let texts = outputs.tensors()[1].texts().map(|text| text.expect("a text").to_owned()).collect();
    Ok((outputs.tensors()[0].slice::<f64>().expect("numbers").to_vec(), texts))
}

fn spawn(served: &Arc<Served>, rows: usize, numbers: Vec<f64>) -> tokio::task::JoinHandle<Answer> {
    let served = served.clone();
    tokio::spawn(async move { ask(&served, rows, &numbers, None).await })
}

/// Waits until so many calls wait.
async fn queued(served: &Served, calls: u64) {
    while served.queue.counts().is_none_or(|counts| counts.queued.load(Relaxed) != calls) {
        tokio::task::yield_now().await;
    }
}

/// Starts a call that keeps the only thread, and then the others, one after the other.
async fn behind(
    served: &Arc<Served>,
    gate: &Gate,
    others: &[(usize, &[f64])],
) -> Vec<tokio::task::JoinHandle<Answer>> {
    let mut calls = vec![spawn(served, 1, vec![100.0])];
    queued(served, 0).await;
    gate.begun(1);
    for (index, (rows, numbers)) in others.iter().enumerate() {
        calls.push(spawn(served, *rows, numbers.to_vec()));
        queued(served, index as u64 + 1).await;
    }
    calls
}

fn two(numbers: &[f64]) -> Answer {
    Ok((numbers.iter().map(|number| 2.0 * number).collect(), numbers.iter().map(f64::to_string).collect()))
}

#[tokio::test]
async fn what_waits_runs_together_and_each_gets_its_own() {
    let (served, gate) = model(Mode::Fixed(fixed()));
    let calls = behind(&served, &gate, &[(1, &[1.0]), (2, &[2.0, 3.0]), (2, &[4.0, 5.0])]).await;
    gate.open(10);
    let want = [two(&[100.0]), two(&[1.0]), two(&[2.0, 3.0]), two(&[4.0, 5.0])];
    for (call, want) in calls.into_iter().zip(want) {
        assert_eq!(call.await.expect("a call"), want);
    }
    // The third would have been the fifth row.
    assert_eq!(gate.batches(), [vec![100.0], vec![1.0, 2.0, 3.0], vec![4.0, 5.0]]);
    let counts = served.queue.counts().expect("counts");
    assert_eq!((counts.batches.load(Relaxed), counts.rows.load(Relaxed)), (3, 6));
}

#[tokio::test]
async fn a_wrong_row_fails_alone() {
    let (served, gate) = model(Mode::Fixed(fixed()));
    let calls = behind(&served, &gate, &[(1, &[1.0]), (1, &[-2.0]), (1, &[3.0]), (1, &[4.0])]).await;
    gate.open(100);
    let answers = futures::future::join_all(calls).await;
    let answers: Vec<Answer> = answers.into_iter().map(|call| call.expect("a call")).collect();
    assert_eq!((&answers[1], &answers[3], &answers[4]), (&two(&[1.0]), &two(&[3.0]), &two(&[4.0])));
    assert_eq!(answers[2].as_ref().map_err(|refusal| refusal.reason), Err(Reason::Input));
}

#[tokio::test]
async fn a_panic_fails_its_batch_and_nothing_else() {
    let (served, gate) = model(Mode::Fixed(fixed()));
    let calls = behind(&served, &gate, &[(1, &[-7.0])]).await;
    gate.open(100);
    let answers = futures::future::join_all(calls).await;
    assert_eq!(
        answers[1].as_ref().expect("a call").as_ref().map_err(|refusal| refusal.reason),
        Err(Reason::Internal)
    );
    assert_eq!(ask(&served, 1, &[5.0], None).await, two(&[5.0]));
}

#[tokio::test]
async fn a_large_call_is_cut_and_put_together_again() {
    let (served, gate) = model(Mode::Fixed(Batching { threads: 2, ..fixed() }));
    gate.open(100);
    let numbers: Vec<f64> = (0..23).map(f64::from).collect();
    assert_eq!(ask(&served, 23, &numbers, None).await, two(&numbers));
    assert!(gate.batches().iter().all(|batch| batch.len() <= 4), "{:?}", gate.batches());
    let (whole, _) = model(Mode::Fixed(Batching { splits: false, ..fixed() }));
    let refused = ask(&whole, 5, &[0.0; 5], None).await.expect_err("five rows");
    assert_eq!((refused.reason, refused.text.contains("at most 4 rows")), (Reason::Input, true));
}

#[tokio::test]
async fn a_batch_has_one_shape_unless_it_may_be_padded() {
    for pads in [false, true] {
        let (served, gate) = model(Mode::Fixed(Batching { pads, ..fixed() }));
        let calls = behind(&served, &gate, &[(1, &[1.0, 2.0]), (1, &[3.0]), (1, &[4.0, 5.0])]).await;
        gate.open(10);
        for call in calls {
            call.await.expect("a call").expect("an answer");
        }
        let want: &[&[f64]] = match pads {
            // What is new is the shorter tensor's first element.
            true => &[&[100.0], &[1.0, 2.0, 3.0, 3.0, 4.0, 5.0]],
            false => &[&[100.0], &[1.0, 2.0, 4.0, 5.0], &[3.0]],
        };
        assert_eq!(gate.batches(), want);
    }
}

#[tokio::test]
async fn a_batch_is_filled_up_to_a_size_that_is_allowed() {
    let (served, gate) = model(Mode::Fixed(Batching { allowed: vec![1, 4], ..fixed() }));
    let calls = behind(&served, &gate, &[(1, &[1.0]), (1, &[2.0])]).await;
    gate.open(10);
    let answers = futures::future::join_all(calls).await;
    assert_eq!(answers[2].as_ref().expect("a call"), &two(&[2.0]));
    assert_eq!(gate.batches()[1], [1.0, 2.0, 2.0, 2.0]);
}

#[tokio::test]
async fn who_left_is_not_batched() {
    let (served, gate) = model(Mode::Fixed(fixed()));
    let calls = behind(&served, &gate, &[(1, &[1.0]), (1, &[2.0])]).await;
    calls[1].abort();
    while !calls[1].is_finished() {
        tokio::task::yield_now().await;
    }
    gate.open(10);
    let mut calls = calls.into_iter();
    assert!(calls.next().expect("the first").await.is_ok());
    assert_eq!(calls.nth(1).expect("the last").await.expect("a call"), two(&[2.0]));
    assert_eq!(gate.batches(), [[100.0], [2.0]]);
    let cancelled = &served.queue.counts().expect("counts").refused[Reason::Cancelled.index()];
    assert_eq!(cancelled.load(Relaxed), 1);
}

#[tokio::test]
async fn a_deadline_that_passes_in_the_queue_is_told_while_the_model_works() {
    let (served, gate) = model(Mode::Fixed(fixed()));
    let calls = behind(&served, &gate, &[]).await;
    // The model is not done, and yet there is an answer.
    let late = ask(&served, 1, &[1.0], Some(Duration::from_millis(20))).await.expect_err("late");
    assert_eq!(late.reason, Reason::Deadline);
    gate.open(10);
    futures::future::join_all(calls).await;
    assert_eq!(gate.batches().len(), 1);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let (served, gate) = model(Mode::Fixed(Batching { queued_batches_max: 1, ..fixed() }));
    let calls = behind(&served, &gate, &[(2, &[1.0, 2.0]), (2, &[3.0, 4.0])]).await;
    let full = ask(&served, 1, &[5.0], None).await.expect_err("full");
    assert_eq!((full.reason, full.retry_after.is_some()), (Reason::QueueFull, true));
    gate.open(10);
    assert!(futures::future::join_all(calls).await.into_iter().all(|call| call.expect("a call").is_ok()));
}

#[tokio::test]
async fn a_deadline_that_cannot_be_met_is_refused_when_the_call_comes() {
    let (served, gate) = model(Mode::Auto);
    // A first batch that takes a second is what the queue knows.
    let first = spawn(&served, 1, vec![1.0]);
    queued(&served, 0).await;
    gate.begun(1);
    let work = Duration::from_secs(1);
    std::thread::sleep(work);
    gate.open(1);
    assert_eq!(first.await.expect("a call"), two(&[1.0]));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let busy: Vec<_> = (0..threads).map(|number| spawn(&served, 1, vec![number as f64])).collect();
    while gate.batches().len() < 2 {
        tokio::task::yield_now().await;
    }
    let shed = ask(&served, 1, &[9.0], Some(work * 9 / 10)).await.expect_err("shed");
    assert_eq!(shed.reason, Reason::Shed);
    gate.open(10);
    assert!(futures::future::join_all(busy).await.into_iter().all(|call| call.expect("a call").is_ok()));
    // An idle model tries: what it knows may be wrong.
    assert_eq!(ask(&served, 1, &[9.0], Some(work * 9 / 10)).await, two(&[9.0]));
}

#[tokio::test]
async fn calls_run_alone_where_that_is_asked() {
    let (served, gate) = model(Mode::Alone);
    gate.open(100);
    let calls: Vec<_> = (0..8).map(|number| spawn(&served, 2, vec![f64::from(number); 2])).collect();
    for call in calls {
        call.await.expect("a call").expect("an answer");
    }
    assert!(gate.batches().iter().all(|batch| batch.len() == 2), "{:?}", gate.batches());
}

#[tokio::test]
async fn calls_whose_rows_change_each_other_run_whole_and_alone_whatever_is_asked() {
    for mode in [Mode::Auto, Mode::Fixed(fixed())] {
        let (served, gate) = model_whose_rows(false, mode);
        let large: Vec<f64> = (0..2_000).map(f64::from).collect();
        let calls =
            [spawn(&served, 1, vec![1.0]), spawn(&served, 2_000, large), spawn(&served, 1, vec![2.0])];
        gate.open(3);
        for call in calls {
            call.await.expect("no panic").expect("it answers");
        }
        let mut rows: Vec<usize> = gate.batches().iter().map(Vec::len).collect();
        rows.sort_unstable();
        assert_eq!(rows, [1, 1, 2_000]);
    }
}

#[test]
fn every_protocol_waits_in_the_queue_and_answers_as_without() {
    // No call of one row may run as it is, so that all of them pass the queue.
    let fixed = Batching { rows_max: 8, allowed: vec![8], queued_batches_max: 10_000, ..Batching::default() };
    let plain = support::Running::start("forest_classifier");
    let queues =
        support::Running::with("forest_classifier", |config| config.queueing.mode = Mode::Fixed(fixed));
    let ask = |server: &support::Running, number: usize| {
        let cells = format!("{}.5,3.5,{}.25,0.2", number % 7, number % 5);
        // A large body goes another way to the same queue, and is cut.
        let rows = vec![format!("[{cells}]"); if number % 16 == 15 { 5_000 } else { 1 }];
        let v2 = format!(
            r#"{{"id":"x","inputs":[{{"name":"input-0","shape":[1,4],"datatype":"FP64","data":[{cells}]}}]}}"#
        );
        match number % 3 {
            0 => server.ask("POST", "/v2/models/iris/infer", &v2),
            _ => server.predict(&format!("{{\"instances\":[{}]}}", rows.join(","))),
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (ask, plain, queues) = (&ask, &plain, &queues);
            scope.spawn(move || {
                for number in (0..24).map(|number| thread * 24 + number) {
                    let want = ask(plain, number);
                    assert_eq!((want.0, ask(queues, number)), (200, want), "call {number}");
                }
            });
        }
    });
}

#[test]
fn a_call_that_is_too_large_for_a_batch_is_refused_by_its_protocol() {
    let server = support::Running::with("forest_classifier", |config| {
        config.queueing.mode = Mode::Fixed(Batching { rows_max: 1, splits: false, ..Batching::default() });
    });
    let (status, body) = server.predict(r#"{"instances":[[1,2,3,4],[5,6,7,8]]}"#);
    assert_eq!((status, body.contains("at most 1 rows")), (400, true), "{body}");
}

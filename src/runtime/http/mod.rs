//! HTTP for those who watch the broker, on a thread of its own: `/metrics` for Prometheus, `/status` for
//! health checks. It shares nothing with the shards but the channels of [`super::admin`], so neither many
//! readers nor hostile ones slow a message down.
//!
//! `hyper` and a single-threaded runtime of `tokio`. A framework above it would choose among four
//! paths and bring a dozen crates; what has to be right here is below that: how many clients there may
//! be, and how long a slow one is borne.

mod metrics;
mod process;
mod status;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};

use crate::limits::{
    HTTP_CONNECTION_MS, HTTP_CONNECTIONS, HTTP_HEAD_BYTES, HTTP_HEAD_MS, SHARD_ANSWER_MS,
};

use super::admin::{Answer, Asker};
use super::clock::Clock;
use super::control::Backups;
use super::error::{BootError, HttpError};
use super::listener::Listening;
use super::tls::Told;

pub use metrics::{families, is_of_process};

/// Pause after an accept that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpAddress {
    /// The address.
    pub address: SocketAddr,
    /// Whether the broker is not to start without it.
    pub required: bool,
}

/// What does not change while the broker runs.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// `io_uring` or `epoll`.
    pub(super) driver: &'static str,
    /// The same with what it can do or why it is not the other one.
    pub(super) driver_detail: String,
    pub(super) kernel: String,
    pub(super) cpus: Vec<usize>,
    pub(super) listeners: Vec<Listening>,
    pub(super) certificates: Told,
    pub(super) max_connections: usize,
    pub(super) clock: Clock,
    pub(super) backups: Arc<Backups>,
}

/// A listening socket that nobody serves yet.
pub(super) struct Bound {
    listener: std::net::TcpListener,
    pub(super) address: SocketAddr,
}

/// Listens. `None` if that is not possible and need not be.
pub(super) fn bind(wanted: HttpAddress) -> Result<Option<Bound>, BootError> {
    let result = std::net::TcpListener::bind(wanted.address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Bound { listener, address })
    });
    match result {
        Ok(bound) => Ok(Some(bound)),
        Err(error) => {
            let error = HttpError {
                address: wanted.address,
                error,
            };
            if wanted.required {
                return Err(BootError::Http(error));
            }
            tracing::warn!("going on without metrics: {error}");
            Ok(None)
        }
    }
}

/// The thread; it ends when this is dropped.
pub(super) struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts the thread.
pub(super) fn start(bound: Bound, asker: Asker, facts: Facts) -> std::io::Result<Server> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let listener = {
        let _entered = runtime.enter();
        TcpListener::from_std(bound.listener)?
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new()
        .name(String::from("http"))
        .spawn(move || {
            let local = tokio::task::LocalSet::new();
            let broker = Rc::new(Watched { asker, facts });
            local.spawn_local(serve(listener, broker));
            // Whatever is on its way then ends with the thread.
            let _ = local.block_on(&runtime, stopped);
        })?;
    Ok(Server {
        stop: Some(stop),
        thread: Some(thread),
    })
}

/// What is told of.
struct Watched {
    asker: Asker,
    facts: Facts,
}

impl Watched {
    async fn ask(&self) -> Vec<Option<Answer>> {
        self.asker.ask(Duration::from_millis(SHARD_ANSWER_MS)).await
    }
}

/// Accepts as many connections as there may be; the others wait in the kernel until one of those ends,
/// which it must soon.
async fn serve(listener: TcpListener, broker: Rc<Watched>) {
    let room = Arc::new(Semaphore::new(HTTP_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let broker = Rc::clone(&broker);
        tokio::task::spawn_local(async move {
            let life = Duration::from_millis(HTTP_CONNECTION_MS);
            let _ = tokio::time::timeout(life, connection(stream, broker)).await;
            drop(place);
        });
    }
}

/// One connection, which is for one request: who asks every few seconds must not keep a place.
async fn connection(stream: TcpStream, broker: Rc<Watched>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let broker = Rc::clone(&broker);
        async move { Ok::<_, Infallible>(respond(&request, &broker).await) }
    });
    // Its errors are those of the client.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(HTTP_HEAD_MS))
        .max_buf_size(HTTP_HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

const INDEX: &str = "ShardMQ\n\n\
    /metrics                   for Prometheus\n\
    /metrics?compat=mosquitto  the same, and what dashboards for mosquitto ask for\n\
    /status                    for health checks, as JSON\n";

const TEXT: &str = "text/plain; charset=utf-8";

async fn respond(request: &Request<Incoming>, broker: &Watched) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !matches!(path, "/" | "/metrics" | "/status") {
        return response(
            StatusCode::NOT_FOUND,
            TEXT,
            "no such page; / lists them\n".into(),
        );
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let text = "this page can only be read\n".into();
        let mut response = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, text);
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/" => response(StatusCode::OK, TEXT, INDEX.into()),
        "/metrics" => match compat(request.uri().query()) {
            Ok(compat) => {
                let answers = broker.ask().await;
                let text = metrics::render(&answers, &broker.facts, compat);
                response(StatusCode::OK, crate::stats::CONTENT_TYPE, text)
            }
            Err(text) => response(StatusCode::BAD_REQUEST, TEXT, text.into()),
        },
        _ => {
            let answers = broker.ask().await;
            let healthy = answers.iter().all(Option::is_some);
            let code = match healthy {
                true => StatusCode::OK,
                false => StatusCode::SERVICE_UNAVAILABLE,
            };
            let text = status::render(&answers, &broker.facts);
            response(code, "application/json", text)
        }
    }
}

/// Whether the series of mosquitto are asked for, too.
fn compat(query: Option<&str>) -> Result<bool, &'static str> {
    match query {
        None | Some("") => Ok(false),
        Some("compat=mosquitto") => Ok(true),
        Some(_) => Err("unknown question; /metrics knows compat=mosquitto\n"),
    }
}

fn response(code: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

//! `nearhit tune`: which bound would have kept a budget?

use clap::Args;
use http::Method;
use serde_json::Value;

use super::Failure;
use super::client::{CacheArg, Server, ServerArgs};
use super::entries::print;

#[derive(Debug, Args)]
pub(super) struct TuneArgs {
    /// Most wrong hits / requests; the cache's own budget if not given.
    #[arg(long, env = "NEARHIT_MAX_ERROR", value_name = "X")]
    max_error: Option<f64>,
    /// Most wrong hits / hits; the cache's own budget if not given.
    #[arg(long, env = "NEARHIT_MAX_ERROR_PER_HIT", value_name = "X")]
    max_error_per_hit: Option<f64>,
    #[command(flatten)]
    cache: CacheArg,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn tune(args: &TuneArgs) -> Result<(), Failure> {
    let asked = [("maxError", args.max_error), ("maxErrorPerHit", args.max_error_per_hit)];
    let query: Vec<String> = asked.iter().filter_map(|(name, value)| Some(format!("{name}={}", (*value)?))).collect();
    let path = args.cache.path(&format!("/tune?{}", query.join("&")))?;
    let answer = Server::new(&args.server)?.call(Method::GET, &path, None).await?;
    print(&args.server, &answer, human);
    Ok(())
}

fn human(answer: &Value) -> String {
    let number = |name: &str| answer[name].as_f64().unwrap_or_default();
    let percent = |name: &str| format!("{:.2} %", 100.0 * number(name));
    if number("samples") == 0.0 {
        return "nothing was compared yet: name a judge, and let the cache run, best in shadow mode".into();
    }
    [
        format!("budget: {} of requests wrong, {} of hits", percent("maxError"), percent("maxErrorPerHit")),
        format!("from {} comparisons", number("samples")),
        format!(
            "serve scores above {:.4} (between {:.4} and {:.4}, with a confidence of 90 %)",
            number("bound"),
            number("boundLow"),
            number("boundHigh")
        ),
        format!(
            "it would have served {}, and been wrong in {} (at most {}) of requests, {} of hits",
            percent("hitRate"),
            percent("error"),
            percent("errorUpper"),
            percent("errorPerHit")
        ),
    ]
    .join("\n")
}

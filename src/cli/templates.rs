//! `nearhit templates`: what the prompts of a cache have in common, as a table.

use clap::Args;
use http::Method;
use serde_json::Value;

use super::Failure;
use super::client::{CacheArg, Server, ServerArgs};

#[derive(Debug, Args)]
pub(super) struct TemplatesArgs {
    /// Most templates to show, 1 to 1000.
    #[arg(long, env = "NEARHIT_LIMIT", default_value_t = 20)]
    limit: u32,
    #[command(flatten)]
    cache: CacheArg,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(args: &TemplatesArgs) -> Result<(), Failure> {
    let path = args.cache.path(&format!("/templates?limit={}", args.limit))?;
    let answer = Server::new(&args.server)?.call(Method::GET, &path, None).await?;
    if args.server.json {
        println!("{answer}");
        return Ok(());
    }
    let templates = answer["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !templates.is_empty() {
        println!("{:>8}  {:8}  template", "count", "refilled");
    }
    for template in templates {
        let (count, text) = (template["count"].as_u64().unwrap_or_default(), line(&template["template"]));
        let refilled = if template["refilled"] == true { "yes" } else { "no" };
        println!("{count:>8}  {refilled:8}  {text}");
        for slot in template["slots"].as_array().into_iter().flatten() {
            let shapes = slot["shapes"].as_array().into_iter().flatten();
            let shapes: Vec<String> =
                shapes.map(|shape| format!("{} ({})", line(&shape["shape"]), shape["count"])).collect();
            let shapes = shapes.join(", ");
            println!("{:20}{} {}: {shapes}{}", "", line(&slot["name"]), line(&slot["role"]), looks(&slot["observed"]));
        }
    }
    let cut = answer["cut"].as_array().into_iter().flatten();
    let cut: Vec<String> = cut.map(line).collect();
    let bound =
        if cut.is_empty() { String::new() } else { format!("; there are more {} than are counted", cut.join(", ")) };
    eprintln!("{} entries looked at{bound}", answer["entries"]);
    Ok(())
}

/// What a slot's values seem to do to the answer, where enough of them were seen.
fn looks(observed: &Value) -> String {
    match observed["looks"].as_str() {
        Some(_) => format!("; looks {} ({} values)", line(&observed["looks"]), observed["values"]),
        None => String::new(),
    }
}

/// Text that stays on its line of the terminal, and does nothing else there.
fn line(text: &Value) -> String {
    let text = text.as_str().unwrap_or_default();
    let mut line: String = text.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line
}

/// Characters of a template that are shown.
const LONGEST: usize = 160;

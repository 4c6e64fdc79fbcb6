//! Which scope a key needs for which call. Pure. What is not named here needs the highest.

use http::Method;

use super::keys::KeyScope;

/// `route` is the route that serves the call, with names for what varies; `None` for calls to providers.
pub(super) fn needed(method: &Method, route: Option<&str>) -> KeyScope {
    let Some(route) = route else { return KeyScope::Write };
    if let Some(call) = route.strip_prefix("/nearhit.v1.CacheService/") {
        return match call {
            "Search" | "SearchBatch" | "Get" | "Stats" => KeyScope::Read,
            "Insert" | "InsertBatch" | "Feedback" | "Delete" => KeyScope::Write,
            _ => KeyScope::Admin,
        };
    }
    match route {
        "/get" => return KeyScope::Read,
        "/put" | "/flush" => return KeyScope::Write,
        _ => {}
    }
    let Some(call) = route.strip_prefix("/v1/caches") else { return KeyScope::Admin };
    match (method.as_str(), call.strip_prefix("/{cache}").unwrap_or(call)) {
        ("GET" | "HEAD", _) | ("POST", "/entries/search" | "/entries/search/batch") => KeyScope::Read,
        ("POST", "/entries" | "/entries/batch" | "/entries/{id}/feedback") | ("DELETE", "/entries/{id}") => {
            KeyScope::Write
        }
        _ => KeyScope::Admin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls() {
        let check = |method: Method, route: Option<&str>, scope: KeyScope| {
            assert_eq!(needed(&method, route), scope, "{method} {route:?}");
        };
        check(Method::POST, None, KeyScope::Write);
        check(Method::GET, None, KeyScope::Write);
        check(Method::GET, Some("/v1/caches"), KeyScope::Read);
        check(Method::GET, Some("/v1/caches/{cache}/stats"), KeyScope::Read);
        check(Method::HEAD, Some("/v1/caches/{cache}/entries/{id}"), KeyScope::Read);
        check(Method::POST, Some("/v1/caches/{cache}/entries/search"), KeyScope::Read);
        check(Method::POST, Some("/v1/caches/{cache}/entries"), KeyScope::Write);
        check(Method::DELETE, Some("/v1/caches/{cache}/entries/{id}"), KeyScope::Write);
        check(Method::DELETE, Some("/v1/caches/{cache}/entries"), KeyScope::Admin);
        check(Method::POST, Some("/v1/caches/{cache}/entries/delete"), KeyScope::Admin);
        check(Method::POST, Some("/v1/caches/{cache}/flush"), KeyScope::Admin);
        check(Method::POST, Some("/v1/caches/{cache}/unheard-of"), KeyScope::Admin);
        check(Method::PUT, Some("/v1/caches/{cache}/entries"), KeyScope::Admin);
        check(Method::GET, Some("/metrics"), KeyScope::Admin);
        check(Method::POST, Some("/get"), KeyScope::Read);
        check(Method::POST, Some("/put"), KeyScope::Write);
        check(Method::POST, Some("/flush"), KeyScope::Write);
        for (call, scope) in [
            ("Search", KeyScope::Read),
            ("SearchBatch", KeyScope::Read),
            ("Get", KeyScope::Read),
            ("Stats", KeyScope::Read),
            ("Insert", KeyScope::Write),
            ("InsertBatch", KeyScope::Write),
            ("Feedback", KeyScope::Write),
            ("Delete", KeyScope::Write),
            ("Flush", KeyScope::Admin),
            ("Unheard", KeyScope::Admin),
        ] {
            check(Method::POST, Some(&format!("/nearhit.v1.CacheService/{call}")), scope);
        }
    }
}

//! Whom to call: an address, and connections to it that are given up where the other end is silent.

use std::time::Duration;

use tonic::transport::Endpoint;

/// What stands at `http://HOST:PORT`. Its connections are asked every `keepalive` whether they still stand, and given up after as long
/// again without a word; connecting takes `connect_timeout` at most.
///
/// # Errors
/// It is no such address: the problem as a sentence, which does not repeat the address, since that may have a password in it. Not retryable.
pub fn address(address: &str, connect_timeout: Duration, keepalive: Duration) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|_| "is no address: must be http://HOST:PORT")?;
    let uri = endpoint.uri();
    let is_http = uri.scheme_str() == Some("http");
    let has_host = uri.host().is_some_and(|host| !host.is_empty()) && uri.port_u16().is_some_and(|port| port > 0);
    // A parsed address has lost what came after a '#'.
    let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none() && !address.contains(['@', '#']);
    if !is_http || !has_host || !is_bare {
        return Err("must be http://HOST:PORT, without user, path or query".to_owned());
    }
    Ok(endpoint
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(keepalive)
        .keep_alive_timeout(keepalive)
        .keep_alive_while_idle(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["http://127.0.0.1:50051", "http://gateway.internal:50051/", "http://[::1]:1"] {
            assert!(address(good, SECOND, SECOND).is_ok(), "{good}");
        }
    }

    #[test]
    fn what_is_none_is_refused_and_not_repeated() {
        let user = "http://shop:hunter2@gateway.internal:50051";
        let no_host = ["", "http://", "http://:1", "gateway.internal:50051", "https://a:1", "ftp://a:1"];
        let no_port = ["http://gateway.internal", "http://a:", "http://a:0", "http://a:99999", "http://shop:hunter2#@a:1"];
        let more = [user, "http://a:1/hunter2", "http://a:1?hunter2", "http://a:1#hunter2"];
        for bad in no_host.into_iter().chain(no_port).chain(more) {
            let problem = address(bad, SECOND, SECOND).map(|_| ()).unwrap_err();
            assert!(problem.contains("http://HOST:PORT") && !problem.contains("hunter2"), "{bad}: {problem}");
        }
    }
}

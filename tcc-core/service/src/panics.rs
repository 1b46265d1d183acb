//! A panic stays inside its call: the caller gets INTERNAL, and the panic's text stays in the log.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll},
};

use futures::FutureExt;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Service, http},
};
use tonic_types::{ErrorDetails, StatusExt};

/// A service whose handlers may panic.
#[derive(Clone)]
pub(crate) struct Caught<S>(pub(crate) S);

impl<S, B> Service<http::Request<B>> for Caught<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let domain = package(request.uri().path()).to_owned();
        // Nothing of the call is used after its panic, and what it shares with others is guarded by types that notice.
        let answer = AssertUnwindSafe(self.0.call(request)).catch_unwind();
        Box::pin(async move { answer.await.unwrap_or_else(|panic| Ok(answer_panic(&domain, &*panic))) })
    }
}

/// The package of the called API: `order.v1` of `/order.v1.OrderService/PlaceOrder`.
fn package(path: &str) -> &str {
    let service = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    service.rsplit_once('.').map_or(service, |(package, _)| package)
}

fn answer_panic(domain: &str, panic: &(dyn Any + Send)) -> http::Response<Body> {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(panic = text, "a handler panicked");
    let details = ErrorDetails::with_error_info("INTERNAL", domain, []);
    Status::with_error_details(Code::Internal, "internal error", details).into_http()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_is_what_stands_before_the_services_name() {
        assert_eq!(package("/order.v1.OrderService/PlaceOrder"), "order.v1");
        assert_eq!(package("/tcc.v1.Participant/Try"), "tcc.v1");
        assert_eq!(package("/Bare/Call"), "Bare");
        assert_eq!(package(""), "");
    }
}

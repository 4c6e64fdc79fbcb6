//! `nearhit.v1.CacheService`: each call is the HTTP endpoint of the same name.

use std::sync::Arc;

use futures_util::stream::{BoxStream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::super::App;
use super::super::api::fields::{BATCH_MAX, owner};
use super::super::api::search::IN_FLIGHT;
use super::super::api::{caches, entries, insert, search};
use super::super::auth::Standing;
use super::super::error::ApiError;
use super::pb::cache_service_server::CacheService;
use super::pb::{
    DeleteRequest, DeleteResponse, FeedbackRequest, FeedbackResponse, FlushRequest, FlushResponse, GetRequest,
    GetResponse, InsertBatchResponse, InsertRequest, InsertResponse, SearchBatchResponse, SearchRequest,
    SearchResponse, StatsRequest, StatsResponse, insert_batch_response, search_batch_response,
};
use super::status;
use crate::decision::{CacheName, Tenant};
use crate::store::Owner;

/// The cache API's calls.
pub(super) struct Calls(Arc<App>);

impl Calls {
    pub(super) fn new(app: &Arc<App>) -> Self {
        Self(Arc::clone(app))
    }
}

/// A message's answer; the error is what HTTP would have said.
type Answered<T> = Result<T, ApiError>;

#[tonic::async_trait]
impl CacheService for Calls {
    async fn search(&self, request: Request<SearchRequest>) -> Result<Response<SearchResponse>, Status> {
        let (tenant, message) = opened(request);
        answered(search(&self.0, tenant.as_ref(), message).await)
    }

    async fn insert(&self, request: Request<InsertRequest>) -> Result<Response<InsertResponse>, Status> {
        let (tenant, message) = opened(request);
        answered(insert(&self.0, tenant.as_ref(), message).await)
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let (tenant, GetRequest { cache, id }) = opened(request);
        let owner = named(tenant.as_ref(), &cache).map_err(status::of_failed)?;
        let found = entries::find(&self.0, &owner, &id).await;
        answered(found.map(|found| GetResponse { entry: Some(found.into()) }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let (tenant, DeleteRequest { cache, id }) = opened(request);
        let owner = named(tenant.as_ref(), &cache).map_err(status::of_failed)?;
        answered(entries::remove(&self.0, owner, &id).await.map(|()| DeleteResponse {}))
    }

    async fn flush(&self, request: Request<FlushRequest>) -> Result<Response<FlushResponse>, Status> {
        let (tenant, FlushRequest { cache, confirm }) = opened(request);
        let owner = named(tenant.as_ref(), &cache).map_err(status::of_failed)?;
        let confirmed = caches::FlushBody { confirm };
        answered(caches::empty(&self.0, owner, confirmed).await.map(|()| FlushResponse {}))
    }

    async fn feedback(&self, request: Request<FeedbackRequest>) -> Result<Response<FeedbackResponse>, Status> {
        let (tenant, FeedbackRequest { cache, id, correct, prompt }) = opened(request);
        let owner = named(tenant.as_ref(), &cache).map_err(status::of_failed)?;
        let body = entries::FeedbackBody { correct, prompt };
        answered(entries::hear(&self.0, &owner, &id, body).await.map(|()| FeedbackResponse {}))
    }

    async fn stats(&self, request: Request<StatsRequest>) -> Result<Response<StatsResponse>, Status> {
        let (tenant, StatsRequest { cache }) = opened(request);
        let owner = named(tenant.as_ref(), &cache).map_err(status::of_failed)?;
        answered(Ok(caches::count(&self.0, &owner).await.into()))
    }

    type SearchBatchStream = BoxStream<'static, Result<SearchBatchResponse, Status>>;

    async fn search_batch(
        &self,
        request: Request<Streaming<SearchRequest>>,
    ) -> Result<Response<Self::SearchBatchStream>, Status> {
        use search_batch_response::Result::{Answer, Problem};

        let app = Arc::clone(&self.0);
        Ok(in_order(&self.0, request, move |tenant, message| {
            let app = Arc::clone(&app);
            async move {
                let result = search(&app, tenant.as_ref(), message).await;
                let result = result.map_or_else(|error| Problem(status::of_item(error.problem())), Answer);
                SearchBatchResponse { result: Some(result) }
            }
        }))
    }

    type InsertBatchStream = BoxStream<'static, Result<InsertBatchResponse, Status>>;

    async fn insert_batch(
        &self,
        request: Request<Streaming<InsertRequest>>,
    ) -> Result<Response<Self::InsertBatchStream>, Status> {
        use insert_batch_response::Result::{Answer, Problem};

        let app = Arc::clone(&self.0);
        Ok(in_order(&self.0, request, move |tenant, message| {
            let app = Arc::clone(&app);
            async move {
                let result = insert(&app, tenant.as_ref(), message).await;
                let result = result.map_or_else(|error| Problem(status::of_item(error.problem())), Answer);
                InsertBatchResponse { result: Some(result) }
            }
        }))
    }
}

/// Who calls, where the server keeps entries for them, and the message.
fn opened<M>(mut request: Request<M>) -> (Option<Tenant>, M) {
    let tenant = request.extensions_mut().remove::<Tenant>();
    (tenant, request.into_inner())
}

fn answered<T>(answer: Answered<T>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(status::of_failed)
}

/// The caller's cache; an empty name is the default's.
fn named(tenant: Option<&Tenant>, cache: &str) -> Answered<Owner> {
    let default = CacheName::default();
    owner(tenant, if cache.is_empty() { default.as_str() } else { cache })
}

async fn search(app: &App, tenant: Option<&Tenant>, message: SearchRequest) -> Answered<SearchResponse> {
    let owner = named(tenant, &message.cache)?;
    Ok(search::answer(app, &owner, message.try_into()?).await?.into())
}

async fn insert(app: &App, tenant: Option<&Tenant>, message: InsertRequest) -> Answered<InsertResponse> {
    let owner = named(tenant, &message.cache)?;
    Ok(insert::store(app, &owner, message.try_into()?).await?.into())
}

/// Answers a stream of messages in their order, some at a time. A message that cannot be read ends the stream, and so
/// does one beyond a batch of HTTP's, or after the caller's key was revoked.
fn in_order<M, A, F>(
    app: &Arc<App>,
    mut request: Request<Streaming<M>>,
    answer: impl Fn(Option<Tenant>, M) -> F + Send + 'static,
) -> Response<BoxStream<'static, Result<A, Status>>>
where
    M: Send + 'static,
    A: Send + 'static,
    F: Future<Output = A> + Send + 'static,
{
    let app = Arc::clone(app);
    let standing = request.extensions_mut().remove::<Standing>();
    let (tenant, messages) = opened(request);
    let answers = messages.enumerate().map(move |(number, message)| {
        let begun = message.map_err(|unread| Status::new(status::exact(unread.code()), unread.message()));
        let begun = begun.and_then(|message| {
            if number >= BATCH_MAX {
                let most = format!("a stream takes at most {BATCH_MAX} messages: open another one");
                return Err(Status::resource_exhausted(most));
            }
            standing.as_ref().map_or(Ok(()), |standing| standing.check(&app)).map_err(status::of)?;
            Ok(answer(tenant.clone(), message))
        });
        async move {
            match begun {
                Ok(answer) => Ok(answer.await),
                Err(refused) => Err(refused),
            }
        }
    });
    Response::new(answers.buffered(IN_FLIGHT).boxed())
}

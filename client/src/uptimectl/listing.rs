//! Listings as a whole: started again when they expire, cut at what was asked for.

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use uptime_client::v1::Freshness;
use uptime_client::{Answer, Error};

/// How often an expired listing is started again.
const BEGIN_AGAIN_MAX: u32 = 3;

/// Collects a listing, of which nothing was shown yet.
pub(crate) async fn whole<T>(collect: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    let mut begun_again = 0;
    loop {
        match collect().await {
            Err(Error::ListingGone) if begun_again < BEGIN_AGAIN_MAX => begun_again += 1,
            answer => return answer,
        }
    }
}

/// The rows of all pages, at most so many, and whether there are more; as fresh as the last page.
pub(crate) async fn rows<T>(
    mut pages: BoxStream<'static, Result<Answer<Vec<T>>, Error>>,
    limit: Option<u32>,
) -> Result<(Answer<Vec<T>>, bool), Error> {
    let limit = limit.map_or(usize::MAX, |limit| limit as usize);
    let mut all = Answer { value: Vec::new(), freshness: Freshness::default() };
    while let Some(page) = pages.try_next().await? {
        all.freshness = page.freshness;
        all.value.extend(page.value);
        if all.value.len() > limit {
            all.value.truncate(limit);
            return Ok((all, true));
        }
    }
    Ok((all, false))
}

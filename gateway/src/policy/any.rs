//! Lets in whom one of several policies knows, or all of some: by a key, say, or by a token and a certificate.

use std::collections::HashSet;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;

use super::{Asked, Build, Parts, Policy, Verdict};
use crate::document::problem::shown;
use crate::document::section::Section;
use crate::document::value::Kind;
use crate::document::values::text;
use crate::exchange::error::Denial;
use crate::exchange::inquiry::Upstreams;
use crate::exchange::{Context, Error, Identity, Request};
use crate::http::edits::Edits;

/// What stands in the place of its policies' names.
pub(crate) const OF_HINT: &str = "write the names of policies that find out who a client is";

const CHALLENGE: &[u8] = b"www-authenticate";

/// Which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    of: Vec<String>,
    /// How many of them, one behind the other, must all know a client.
    groups: Vec<usize>,
}

impl Settings {
    pub(crate) fn read(table: &mut Section<'_>) -> Self {
        let mut seen = HashSet::new();
        let groups = table.list("of", OF_HINT, |kind| {
            let names = names(kind)?;
            match seen.insert(names.clone()) {
                true => Ok(names),
                false => Err(format!("{} is there already", shown(&names.join(", ")))),
            }
        });
        Self { groups: groups.iter().map(Vec::len).collect(), of: groups.concat() }
    }
}

/// One name, or some.
pub(crate) fn names(kind: &Kind) -> Result<Vec<String>, String> {
    let name = |kind: &Kind| text(kind).map(str::to_owned);
    match kind {
        Kind::List(elements) if !elements.is_empty() => {
            elements.iter().map(|element| name(&element.kind)).collect()
        }
        kind => Ok(vec![name(kind)?]),
    }
}

impl Build for Settings {
    fn members(&self) -> &[String] {
        &self.of
    }

    fn build(&self, parts: &Parts<'_>) -> Rc<dyn Policy> {
        let mut members = parts.members.iter().cloned();
        let group = |length: &usize| Group(members.by_ref().take(*length).collect());
        Rc::new(Any(self.groups.iter().map(group).collect()))
    }
}

/// In the order they are asked.
struct Any(Vec<Group>);

/// Those that must all know a client.
struct Group(Vec<Asked>);

/// What a group says that has nobody to ask.
const NOBODY: Verdict = Verdict::Refuse(Error::Denied(Denial::NoCredentials));

impl Group {
    fn request(&self, request: &Request<'_>, context: &Context) -> Verdict {
        let mut verdict = NOBODY;
        for Asked { policy, .. } in &self.0 {
            verdict = policy.request(request, context);
            if verdict != Verdict::Continue {
                break;
            }
        }
        verdict
    }

    async fn wait(
        &self,
        request: &Request<'_>,
        context: &Context,
        upstreams: &dyn Upstreams,
    ) -> Verdict {
        let mut verdict = NOBODY;
        for Asked { policy, .. } in &self.0 {
            verdict = match policy.request(request, context) {
                Verdict::Wait => policy.wait(request, context, upstreams).await,
                verdict => verdict,
            };
            if verdict != Verdict::Continue {
                break;
            }
        }
        verdict
    }
}

impl Any {
    fn all(&self) -> impl Iterator<Item = &Asked> {
        self.0.iter().flat_map(|group| &group.0)
    }

    /// `group` knows the client, by this name.
    fn let_in(
        &self,
        group: &Group,
        identity: Identity,
        request: &Request<'_>,
        context: &Context,
    ) -> Verdict {
        group.0.iter().for_each(|asked| asked.pass(request));
        request.identity.adopt(identity);
        self.hide(request, context);
        Verdict::Continue
    }
}

impl Policy for Any {
    fn strip(&self, request: &Request<'_>, context: &Context) {
        for Asked { policy, .. } in self.all() {
            policy.strip(request, context);
        }
    }

    fn hide(&self, request: &Request<'_>, context: &Context) {
        for Asked { policy, .. } in self.all() {
            policy.hide(request, context);
        }
    }

    fn request(&self, request: &Request<'_>, context: &Context) -> Verdict {
        let mut tries = Tries::begin(self, request, context);
        for group in &self.0 {
            // Of a group that does not let it in, no member says who it is.
            let identity = request.identity.clone();
            match group.request(&Request { identity: &identity, ..*request }, context) {
                Verdict::Continue => return self.let_in(group, identity, request, context),
                Verdict::Wait => {
                    tries.undo();
                    return Verdict::Wait;
                }
                verdict => tries.fail(verdict),
            }
        }
        tries.end()
    }

    /// Begins anew, as those that need no time say what they have said.
    fn wait<'a>(
        &'a self,
        request: &'a Request<'_>,
        context: &'a Context,
        upstreams: &'a dyn Upstreams,
    ) -> LocalBoxFuture<'a, Verdict> {
        Box::pin(async move {
            let mut tries = Tries::begin(self, request, context);
            for group in &self.0 {
                let identity = request.identity.clone();
                let asked = Request { identity: &identity, ..*request };
                match group.wait(&asked, context, upstreams).await {
                    Verdict::Continue => return self.let_in(group, identity, request, context),
                    verdict => tries.fail(verdict),
                }
            }
            tries.end()
        })
    }
}

/// What has been tried in vain, and how everything was before.
struct Tries<'a> {
    context: &'a Context,
    request_edits: Edits,
    response_edits: Edits,
    /// Of all that have asked for something.
    challenges: Vec<Bytes>,
    /// What tells most of why nobody knows the client, and what the log says of it.
    failure: Option<(Error, Option<Box<str>>)>,
}

impl<'a> Tries<'a> {
    /// What only one of them may say nobody says, whoever it is that knows the client.
    fn begin(any: &Any, request: &Request<'_>, context: &'a Context) -> Self {
        any.strip(request, context);
        Self {
            context,
            request_edits: context.request_edits.borrow().clone(),
            response_edits: context.response_edits.borrow().clone(),
            challenges: Vec::new(),
            failure: None,
        }
    }

    /// One does not know the client.
    fn fail(&mut self, verdict: Verdict) {
        for value in self.context.response_edits.borrow().values(CHALLENGE) {
            let value = Bytes::copy_from_slice(value);
            if !self.challenges.contains(&value) {
                self.challenges.push(value);
            }
        }
        let reason = self.context.reason.take();
        self.undo();
        let error = match verdict {
            Verdict::Refuse(error) => error,
            _ => Error::Denied(Denial::NoCredentials),
        };
        if self.failure.as_ref().is_none_or(|(before, _)| weight(*before) < weight(error)) {
            self.failure = Some((error, reason));
        }
    }

    fn undo(&self) {
        self.context.request_edits.replace(self.request_edits.clone());
        self.context.response_edits.replace(self.response_edits.clone());
        self.context.content.take();
        self.context.reason.take();
    }

    /// None does.
    fn end(self) -> Verdict {
        let mut edits = self.context.response_edits.borrow_mut();
        for challenge in &self.challenges {
            edits.add(Bytes::from_static(CHALLENGE), challenge.clone());
        }
        let nothing = (Error::Denied(Denial::NoCredentials), None);
        let (error, reason) = self.failure.unwrap_or(nothing);
        self.context.reason.replace(reason);
        // RFC 9110 §15.5.2: with 401 goes what to bring.
        let asks = !self.challenges.is_empty();
        Verdict::Refuse(match weight(error) {
            NOTHING if asks => Error::Denied(Denial::NoCredentials),
            WRONG if asks && error.status() != Some(401) => Error::Denied(Denial::WrongCredentials),
            _ => error,
        })
    }
}

/// The client has shown nothing.
const NOTHING: u8 = 0;
/// It has shown something wrong.
const WRONG: u8 = 2;

/// How much a failure tells of why nobody knows a client.
fn weight(error: Error) -> u8 {
    match error {
        Error::Denied(Denial::NoCredentials | Denial::NoCertificate) => NOTHING,
        Error::Denied(Denial::ExpiredToken) => 1,
        Error::Denied(Denial::MissingScope) => 3,
        // Somebody may know it, who cannot be asked, or not about this.
        Error::Rejected(_) => 4,
        error if error.status().is_none_or(|status| status >= 500) => 4,
        _ => WRONG,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Answered, Asker, Nobody};
    use super::*;
    use crate::http::Reject;

    /// Knows who says its name.
    struct Member {
        name: &'static str,
        unknown: Verdict,
        waits: bool,
    }

    impl Member {
        fn verdict(&self, request: &Request<'_>, context: &Context) -> Verdict {
            let (asked, name) =
                (Bytes::from_static(b"x-asked"), Bytes::from_static(self.name.as_bytes()));
            context.request_edits.borrow_mut().add(asked, name.clone());
            let shown =
                crate::http::head::values_of(&request.head.fields, request.bytes, "x-shown");
            if shown.into_iter().any(|value| value == self.name.as_bytes()) {
                request.identity.set(self.name);
                return Verdict::Continue;
            }
            context.response_edits.borrow_mut().add(Bytes::from_static(CHALLENGE), name);
            context.reason.replace(Some(self.name.into()));
            self.unknown
        }
    }

    impl Policy for Member {
        fn strip(&self, _: &Request<'_>, context: &Context) {
            let field = format!("x-{}", self.name);
            context.request_edits.borrow_mut().remove(field.into());
        }

        fn request(&self, request: &Request<'_>, context: &Context) -> Verdict {
            match self.waits {
                true => Verdict::Wait,
                false => self.verdict(request, context),
            }
        }

        fn wait<'a>(
            &'a self,
            request: &'a Request<'_>,
            context: &'a Context,
            _upstreams: &'a dyn Upstreams,
        ) -> LocalBoxFuture<'a, Verdict> {
            Box::pin(async { self.verdict(request, context) })
        }
    }

    fn denied(denial: Denial) -> Verdict {
        Verdict::Refuse(Error::Denied(denial))
    }

    fn any(members: Vec<(&'static str, Verdict, bool)>) -> Any {
        let member = |(name, unknown, waits)| Asked {
            policy: Rc::new(Member { name, unknown, waits }),
            counters: Default::default(),
        };
        Any(members.into_iter().map(|one| Group(vec![member(one)])).collect())
    }

    fn two(waits: bool) -> Any {
        let nothing = denied(Denial::NoCredentials);
        any(vec![("one", nothing, false), ("two", nothing, waits)])
    }

    #[test]
    fn the_first_that_knows_lets_in_and_the_others_leave_nothing_behind() {
        for name in ["one", "two"] {
            let Answered { verdict, request, response } =
                Asker::get("/").field("x-shown", name).of(&two(false));
            assert_eq!(verdict, Verdict::Continue);
            assert_eq!((request, response), (format!("x-asked: {name}\n"), String::new()));
        }
        let nobody = Asker::get("/").field("x-shown", "three").of(&two(false));
        assert_eq!(nobody.verdict, denied(Denial::NoCredentials));
        assert_eq!(nobody.request, "");
        assert_eq!(nobody.response, "www-authenticate: one\nwww-authenticate: two\n");
    }

    #[test]
    fn all_of_a_group_must_know_the_client() {
        for waits in [false, true] {
            let nothing = denied(Denial::NoCredentials);
            let members =
                [("one", nothing, false), ("two", nothing, waits), ("three", nothing, false)];
            let single = any(members.to_vec()).0.into_iter();
            let single: Vec<Asked> = single.flat_map(|group| group.0).collect();
            let [one, two, three] = &single[..] else { panic!("three members") };
            let group = Group(vec![one.clone(), two.clone()]);
            let any = Any(vec![group, Group(vec![three.clone()])]);
            for (shown, expected, who) in [
                (&["one", "two"][..], Verdict::Continue, "one"),
                (&["one", "three"], Verdict::Continue, "three"),
                (&["one"], nothing, ""),
                (&["two"], nothing, ""),
                (&["three"], Verdict::Continue, "three"),
            ] {
                let asker = Asker::get("/");
                let asker = shown.iter().fold(asker, |asker, name| asker.field("x-shown", name));
                asker.ask(|request, context| {
                    let mut verdict = any.request(request, context);
                    if verdict == Verdict::Wait {
                        let waiting = any.wait(request, context, &Nobody);
                        verdict = futures_util::FutureExt::now_or_never(waiting).unwrap();
                    }
                    assert_eq!((verdict, request.identity()), (expected, who), "{shown:?}");
                });
            }
        }
    }

    #[test]
    fn nobody_lets_nobody_in() {
        let none = Any(vec![Group(Vec::new())]);
        assert_eq!(Asker::get("/").of(&none).verdict, NOBODY);
    }

    #[test]
    fn what_only_one_may_say_nobody_says() {
        Asker::get("/").field("x-shown", "one").ask(|request, context| {
            assert_eq!(two(false).request(request, context), Verdict::Continue);
            let edits = context.request_edits.borrow();
            assert!(edits.removes(b"x-one") && edits.removes(b"x-two"));
        });
    }

    #[test]
    fn the_log_tells_of_the_failure_that_counts() {
        let unanswered = denied(Denial::Unanswered);
        for (name, waits, expected) in
            [("two", false, None), ("two", true, None), ("three", false, Some("one"))]
        {
            let any = any(vec![
                ("one", unanswered, false),
                ("two", denied(Denial::NoCredentials), waits),
            ]);
            Asker::get("/").field("x-shown", name).ask(|request, context| {
                if any.request(request, context) == Verdict::Wait {
                    let waiting = any.wait(request, context, &Nobody);
                    let verdict = futures_util::FutureExt::now_or_never(waiting).unwrap();
                    assert_eq!(verdict, Verdict::Continue);
                }
                assert_eq!(context.reason.borrow().as_deref(), expected);
            });
        }
    }

    #[test]
    fn those_that_take_their_time_are_waited_for() {
        for (name, expected) in [
            ("one", Verdict::Continue),
            ("two", Verdict::Continue),
            ("three", denied(Denial::NoCredentials)),
        ] {
            Asker::get("/").field("x-shown", name).ask(|request, context| {
                let any = two(true);
                let mut verdict = any.request(request, context);
                if verdict == Verdict::Wait {
                    let waiting = any.wait(request, context, &Nobody);
                    verdict = futures_util::FutureExt::now_or_never(waiting).unwrap();
                }
                assert_eq!(verdict, expected);
                let edits = context.request_edits.borrow();
                let asked: Vec<_> = edits.values(b"x-asked").collect();
                let expected: &[&[u8]] = if name == "three" { &[] } else { &[name.as_bytes()] };
                assert_eq!(asked, expected);
            });
        }
    }

    #[test]
    fn the_failure_that_tells_most_counts() {
        let nothing = denied(Denial::NoCredentials);
        let wrong = denied(Denial::WrongToken("it is wrong"));
        let rejected = Verdict::Refuse(Error::Rejected(Reject::Expectation));
        for (first, second, expected) in [
            (nothing, wrong, wrong),
            (wrong, nothing, wrong),
            (denied(Denial::ExpiredToken), nothing, denied(Denial::ExpiredToken)),
            (denied(Denial::ExpiredToken), wrong, wrong),
            (denied(Denial::NoCertificate), nothing, nothing),
            (denied(Denial::OtherCertificate), nothing, denied(Denial::WrongCredentials)),
            (denied(Denial::MissingScope), wrong, denied(Denial::MissingScope)),
            (denied(Denial::NoKeys), wrong, denied(Denial::NoKeys)),
            (Verdict::Refuse(Error::Unavailable), wrong, Verdict::Refuse(Error::Unavailable)),
            (Verdict::Answer(302), nothing, nothing),
            (rejected, nothing, rejected),
        ] {
            let any = any(vec![("one", first, false), ("two", second, false)]);
            assert_eq!(Asker::get("/").of(&any).verdict, expected, "{first:?} {second:?}");
        }
    }
}

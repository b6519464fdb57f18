(async () => {
  const rest = (time) => new Promise((done) => setTimeout(done, time));
  for (;;) {
    try {
      const answer = await fetch(location.href, {
        headers: { "X-Hawksbill-Wait": "{number}" }, cache: "no-store", redirect: "manual",
      });
      if (answer.headers.get("X-Hawksbill-Broken") !== "{number}") break;
      await rest(20);
    } catch {
      await rest(300);
    }
  }
  if ({repeat}) location.reload();
  else location.assign(location.pathname + location.search);
})();

// Requests to the server; an error is the server's own line.

export async function api(method, path, body) {
  const form = body instanceof FormData;
  const response = await fetch(path, {
    method,
    headers: body && !form ? { "content-type": "application/json" } : {},
    body: form ? body : body && JSON.stringify(body),
  });
  if (!response.ok) throw await responseError(response);
  return response.json();
}

export async function responseError(response) {
  const value = await response.json().catch(() => ({}));
  return new Error(value.error?.message ?? `the server answered ${response.status}`);
}

export const videoPath = (id, rest = "") => `/v1/videos/${id}${rest}`;

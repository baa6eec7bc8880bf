-- The attempts of an integration, and of these the failed ones, in the order of the list. It grows at two right ends for each integration,
-- and is written to with a result, not with a webhook. The predicate is there for the reason of those in 0012.
SET LOCAL lock_timeout = '1s';

SELECT create_index_ahead('delivery_attempts', 'delivery_attempts_integration', '_integration',
    '(integration_id, succeeded, id) WHERE integration_id <> ''00000000-0000-0000-0000-000000000000''');

-- The order of the states has a meaning that their type did not show.
COMMENT ON TYPE delivery_status IS
    'In the order of progress: max(status) over the unfinished deliveries of an event is the status of the event. A new state must be added (BEFORE or AFTER another) where its progress belongs.';
